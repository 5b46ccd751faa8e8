// Package tencent asks Tencent Chat (Tencent Cloud IM) who is online and which
// accounts were imported, through its REST API.
//
// It makes and renews the admin's UserSig, classifies every documented error
// code, and never sleeps or retries but in two ways that only it can judge: one
// new signature after a refused one, and one more question about users that an
// answer left out. All else is for the caller, by the class of the error.
package tencent

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
)

// Config is what a client needs. SDKAppID, Identifier, SecretKey and BaseURL
// are required.
type Config struct {
	SDKAppID   uint32 // the app's number in the console
	Identifier string // an account that is app administrator
	SecretKey  string // the app's key as the console shows it
	// BaseURL is the address before /v4, e.g. https://console.tim.qq.com; see BaseURL.
	BaseURL string
	// PresenceAPI is query_online_status (the default) or its old name, querystate.
	PresenceAPI string
	// Detail asks for the devices as well. Without it the platforms stay empty.
	Detail bool
	// UserSigTTL is how long a signature is valid; it is renewed at 80 %. The
	// default is 168h. The documents advise no less than 24h.
	UserSigTTL time.Duration
	// Timeout bounds one call, default 8s. The backend gives up after 3s itself.
	Timeout time.Duration
	// The gates keep the calls of each API under its limit (200 and 100 a second
	// by default at Tencent); nil means no limit.
	PresenceGate, AccountsGate *imclient.Gate
	Now                        func() time.Time // the database's clock; default time.Now
	Log                        zerolog.Logger
	CAs                        *x509.CertPool    // the only ones whose certificates are believed; nil: the system's
	Proxy                      *url.URL          // carries all calls; nil: none does
	Transport                  http.RoundTripper // nil: a pooled transport
	Observer                   imclient.Observer // of the calls; nil: none
	// Around puts something around the transport, such as what traces it; nil: nothing.
	Around func(http.RoundTripper) http.RoundTripper
}

const (
	defaultUserSigTTL = 168 * time.Hour
	defaultTimeout    = 8 * time.Second
)

// validate joins all that is wrong; the names are those of an app's settings.
func (c Config) validate() error {
	var faults []error
	if c.SDKAppID == 0 {
		faults = append(faults, errors.New("sdk_app_id is missing"))
	}
	if fault := checkUserID(c.Identifier); fault != "" {
		faults = append(faults, fmt.Errorf("identifier: %s", fault))
	}
	if c.SecretKey == "" {
		faults = append(faults, errors.New("secret_key is missing"))
	}
	if c.PresenceAPI != apiQueryOnlineStatus && c.PresenceAPI != apiQueryState {
		faults = append(faults, fmt.Errorf("presence_api is %q (allowed: %s, %s)", c.PresenceAPI, apiQueryOnlineStatus, apiQueryState))
	}
	if c.UserSigTTL < time.Second {
		faults = append(faults, fmt.Errorf("usersig_ttl is %s, less than a second", c.UserSigTTL))
	}
	if c.Timeout <= 0 {
		faults = append(faults, fmt.Errorf("timeout is %s, not positive", c.Timeout))
	}
	if err := imclient.CheckBaseURL(c.BaseURL); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// Client asks one app. Safe for concurrent use.
type Client struct {
	http               *imclient.HTTP
	presence, accounts endpoint
	detail             bool
	identifier         string
	secretKey          string
	query              string // what stands in the query before the signature
	signatures         *imclient.Credentials
	now                func() time.Time
	log                zerolog.Logger
	clock              clockWatch
}

// endpoint is one API.
type endpoint struct {
	name string
	url  string // without query
	gate *imclient.Gate
}

// New makes a client; it makes no call.
func New(c Config) (*Client, error) {
	c.PresenceAPI = cmp.Or(c.PresenceAPI, apiQueryOnlineStatus)
	c.UserSigTTL = cmp.Or(c.UserSigTTL, defaultUserSigTTL)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("tencent client: %w", err)
	}
	base := strings.TrimRight(c.BaseURL, "/")
	signer := &signer{appID: c.SDKAppID, key: c.SecretKey, identifier: c.Identifier, ttl: c.UserSigTTL, now: c.Now}
	return &Client{
		http: imclient.NewHTTP(imclient.HTTPConfig{
			Provider: imclient.ProviderTencent, Timeout: c.Timeout, Now: c.Now, CAs: c.CAs, Proxy: c.Proxy, Transport: c.Transport, Around: c.Around, Observer: c.Observer,
		}),
		presence:   endpoint{name: c.PresenceAPI, url: base + "/v4/openim/" + c.PresenceAPI, gate: c.PresenceGate},
		accounts:   endpoint{name: apiAccountCheck, url: base + "/v4/im_open_login_svc/" + apiAccountCheck, gate: c.AccountsGate},
		detail:     c.Detail,
		identifier: c.Identifier,
		secretKey:  c.SecretKey,
		query:      "sdkappid=" + strconv.FormatUint(uint64(c.SDKAppID), 10) + "&identifier=" + url.QueryEscape(c.Identifier) + "&usersig=",
		signatures: &imclient.Credentials{Make: signer.sign, Now: c.Now, Kept: func(error) {}},
		now:        c.Now,
		log:        c.Log,
	}, nil
}

// Close closes the idle connections.
func (c *Client) Close() { c.http.Close() }

// Ping makes one account_check of the identifier itself, which proves the
// address, the signature and the admin right. Its errors are CheckAccounts'.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.CheckAccounts(ctx, []string{c.identifier})
	return err
}
