// Package tencent queries Tencent Chat (Tencent Cloud IM) for the presence of users and
// for which accounts are imported, through its REST API.
//
// It signs the calls as an administrator, classifies every documented code, and retries
// in two cases only: once with a new signature after one was refused, and once for users
// that an answer left out. All other failures are for the caller (package jobs), by
// their class. Package imclient has what all providers share; internal/imsim simulates
// the server.
package tencent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
)

// Config configures a Client. SDKAppID, Identifier, SecretKey and BaseURL are required.
type Config struct {
	SDKAppID   uint32 // the app's number in the console
	Identifier string // an account that is an app administrator
	SecretKey  string // the app's key as the console shows it
	// BaseURL is the address before /v4, e.g. https://console.tim.qq.com; see BaseURL.
	BaseURL string
	// PresenceAPI is query_online_status, the default, or its old name, querystate.
	PresenceAPI string
	// Detail requests the users' devices too. Without it the platforms stay empty.
	Detail bool
	// UserSigTTL is how long a signature is valid, 168h by default. It is renewed at
	// 80 %. The documents advise at least 24h. It is no setting: a stolen signature works
	// for so long, and a shorter validity gains little against one who can read it again.
	UserSigTTL time.Duration
	// The gates limit the calls of each API, at Tencent by default to 200 and 100 a
	// second. A nil gate does not limit them.
	PresenceGate, AccountsGate *imclient.Gate
	Log                        zerolog.Logger
	// HTTPConfig has its defaults; New sets Provider. The backend gives up after 3s.
	imclient.HTTPConfig
}

const defaultUserSigTTL = 168 * time.Hour

// validate joins all faults. Fields that are settings have the names of the settings.
func (c Config) validate() error {
	faults := []error{c.HTTPConfig.Validate(), imclient.CheckBaseURL(c.BaseURL)}
	if c.SDKAppID == 0 {
		faults = append(faults, errors.New("sdk_app_id is missing"))
	}
	if fault := CheckUserID(c.Identifier); fault != "" {
		faults = append(faults, fmt.Errorf("identifier: %s", fault))
	}
	if c.SecretKey == "" {
		faults = append(faults, errors.New("secret_key is missing"))
	}
	if c.PresenceAPI != apiQueryOnlineStatus && c.PresenceAPI != apiQueryState {
		faults = append(faults, fmt.Errorf("presence_api is %q (allowed: %s, %s)", c.PresenceAPI, apiQueryOnlineStatus, apiQueryState))
	}
	if c.UserSigTTL < time.Second {
		faults = append(faults, fmt.Errorf("UserSigTTL is %s, less than a second", c.UserSigTTL))
	}
	return errors.Join(faults...)
}

// maxUserBytes is the largest average size of an answer per user: an id of at most 32
// bytes, two states, and 50 bytes for each of a dozen platforms.
const maxUserBytes = 1 << 10

// Client queries one app. Safe for concurrent use.
type Client struct {
	exchange           *imclient.Exchange
	presence, accounts imclient.Call
	detail             bool
	identifier         string
}

// New returns a client. It makes no call.
func New(c Config) (*Client, error) {
	c.PresenceAPI = cmp.Or(c.PresenceAPI, apiQueryOnlineStatus)
	c.UserSigTTL = cmp.Or(c.UserSigTTL, defaultUserSigTTL)
	c.HTTPConfig = c.HTTPConfig.WithDefaults(imclient.ProviderTencent)
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("tencent client: %w", err)
	}
	base := strings.TrimRight(c.BaseURL, "/")
	return &Client{
		exchange:   newExchange(c),
		presence:   imclient.Call{API: c.PresenceAPI, URL: base + "/v4/openim/" + c.PresenceAPI, Gate: c.PresenceGate, MaxUsers: maxPresenceBatch, BytesPerUser: maxUserBytes},
		accounts:   imclient.Call{API: apiAccountCheck, URL: base + "/v4/im_open_login_svc/" + apiAccountCheck, Gate: c.AccountsGate, MaxUsers: maxAccountsBatch, BytesPerUser: maxUserBytes},
		detail:     c.Detail,
		identifier: c.Identifier,
	}, nil
}

// newExchange returns the exchange of a client. Source: "RESTful API Overview".
func newExchange(c Config) *imclient.Exchange {
	signer := &signer{appID: c.SDKAppID, key: c.SecretKey, identifier: c.Identifier, ttl: c.UserSigTTL, now: c.Now}
	query := "sdkappid=" + strconv.FormatUint(uint64(c.SDKAppID), 10) + "&identifier=" + url.QueryEscape(c.Identifier) + "&usersig="
	clock := &clockWatch{log: c.Log}
	return &imclient.Exchange{
		HTTP:        imclient.NewHTTP(c.HTTPConfig),
		Credentials: &imclient.Credentials{Make: signer.sign, Now: c.Now, Kept: func(error) {}},
		Secret:      c.SecretKey,
		Log:         c.Log,
		NewID:       func() string { return strconv.FormatUint(uint64(rand.Uint32()), 10) },
		IDName:      "random",
		Sign: func(r *http.Request, random, sig string) {
			r.URL.RawQuery = query + sig + "&random=" + random + "&contenttype=json"
		},
		Meaning: func(code, _ int, _ string) imclient.Meaning { return codes[code] },
		// After the pause of a lock-out the next call must not carry the signature again.
		Refuses:    func(code string, _ imclient.Credential) bool { return code == codeLockedOut },
		Advice:     func() string { return fixSignature + clock.note() },
		SelfSigned: true,
		Seen:       clock.see,
	}
}

// Close closes the idle connections.
func (c *Client) Close() { c.exchange.HTTP.Close() }

// Ping makes one account_check of the identifier itself, which tests the address, the
// signature and the administrator's right. Its errors are those of CheckAccounts.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.CheckAccounts(ctx, []string{c.identifier})
	return err
}
