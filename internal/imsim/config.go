package imsim

import (
	"errors"
	"fmt"
	"time"
)

// Config configures a Server.
type Config struct {
	// Tencent and OpenIM are the simulated providers; a nil one is not served.
	Tencent *Tencent
	OpenIM  *OpenIM
	// Population is the users, for both providers. If nil, only users set by Users
	// exist.
	Population Population
	// Now returns the time; nil means time.Now. It is called concurrently.
	Now func() time.Time
	// Speed is how many times faster than the clock the population lives, from New
	// on; 0 means 1. At 1440 its day takes a minute. Limits, signatures and tokens
	// keep to the clock.
	Speed float64
	// Record stores every value served, for Served. It grows with the number of users
	// and of their changes.
	Record bool
}

// Validate returns all that is wrong with a configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Tencent == nil && c.OpenIM == nil {
		errs = append(errs, errors.New("neither Tencent nor OpenIM is to be simulated"))
	}
	if t := c.Tencent; t != nil && (t.SDKAppID == 0 || len(t.Admins) == 0 || t.SecretKey == "") {
		errs = append(errs, errors.New("the Tencent app needs an SDKAppID, an admin and a secret key"))
	}
	if o := c.OpenIM; o != nil {
		if o.AdminUserID == "" || o.Secret == "" {
			errs = append(errs, errors.New("the OpenIM server needs an admin user id and a secret"))
		}
		switch o.Version {
		case "", OpenIM380, OpenIM383, OpenIMMain:
			if o.Version == OpenIM380 && o.HookURL != "" {
				errs = append(errs, errors.New("OpenIM 3.8.0 sends no hooks about connections; use another version"))
			}
		default:
			errs = append(errs, fmt.Errorf("unknown OpenIM version %q; allowed: %q, %q, %q", o.Version, OpenIM380, OpenIM383, OpenIMMain))
		}
	}
	if c.Speed < 0 {
		errs = append(errs, fmt.Errorf("speed %g is negative", c.Speed))
	}
	return errors.Join(errs...)
}
