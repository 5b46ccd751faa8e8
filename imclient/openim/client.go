// Package openim asks an OpenIM server, v3.0 or newer, who is online and which
// users are registered, through its REST API.
//
// It logs in as an admin and keeps the token, classifies every known error code,
// and retries in two cases only: once with a new token after one was refused,
// and once about users that an answer left out. All else is for the caller, by
// the class of the error. Users' session tokens and connection ids, which the
// server sends along, are dropped while decoding.
package openim

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
)

// Config is what a client needs. BaseURL, AdminUserID and Secret are required.
type Config struct {
	BaseURL     string // the API's address, e.g. http://127.0.0.1:10002
	AdminUserID string // one of the server's imAdminUserIDs, best of its own for syncer
	Secret      string // the server's secret (share.yml)
	// PresenceBatch and AccountsBatch are the ids per call, 1 to 2000, default
	// 500. OpenIM sets no limit but that of its messages, and beyond it answers
	// that everybody is offline.
	PresenceBatch, AccountsBatch int
	// Timeout bounds one call, default 8s. The server has none of its own.
	Timeout time.Duration
	// The gates keep the calls of each API under a limit; nil means no limit.
	// Logins do not count.
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
	defaultBatch = 500
	// maxBatch keeps an answer well below gRPC's 4 MiB of v3.8.0 to v3.8.3, with
	// 2 KiB for the connections and tokens of each user.
	maxBatch       = 2000
	defaultTimeout = 8 * time.Second
)

// validate joins all that is wrong; the names are those of an app's settings.
func (c Config) validate() error {
	var faults []error
	if err := imclient.CheckBaseURL(c.BaseURL); err != nil {
		faults = append(faults, err)
	}
	if fault := checkUserID(c.AdminUserID); fault != "" {
		faults = append(faults, fmt.Errorf("admin_user_id: %s", fault))
	}
	if c.Secret == "" {
		faults = append(faults, errors.New("secret is missing"))
	}
	if c.PresenceBatch < 1 || c.PresenceBatch > maxBatch {
		faults = append(faults, fmt.Errorf("presence_batch is %d (allowed: 1 to %d)", c.PresenceBatch, maxBatch))
	}
	if c.AccountsBatch < 1 || c.AccountsBatch > maxBatch {
		faults = append(faults, fmt.Errorf("accounts_batch is %d (allowed: 1 to %d)", c.AccountsBatch, maxBatch))
	}
	if c.Timeout <= 0 {
		faults = append(faults, fmt.Errorf("timeout is %s, not positive", c.Timeout))
	}
	return errors.Join(faults...)
}

// Client asks one server. Safe for concurrent use.
type Client struct {
	http                         *imclient.HTTP
	base                         string
	adminUserID, secret          string
	presenceBatch, accountsBatch int
	presenceGate, accountsGate   *imclient.Gate
	tokens                       *imclient.Credentials
	now                          func() time.Time
	log                          zerolog.Logger
}

// New makes a client; it makes no call, the first one logs in.
func New(c Config) (*Client, error) {
	c.PresenceBatch = cmp.Or(c.PresenceBatch, defaultBatch)
	c.AccountsBatch = cmp.Or(c.AccountsBatch, defaultBatch)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("openim client: %w", err)
	}
	client := &Client{
		http: imclient.NewHTTP(imclient.HTTPConfig{
			Provider: imclient.ProviderOpenIM, Timeout: c.Timeout, Now: c.Now, CAs: c.CAs, Proxy: c.Proxy, Transport: c.Transport, Around: c.Around, Observer: c.Observer,
		}),
		base:          strings.TrimRight(c.BaseURL, "/"),
		adminUserID:   c.AdminUserID,
		secret:        c.Secret,
		presenceBatch: c.PresenceBatch,
		accountsBatch: c.AccountsBatch,
		presenceGate:  c.PresenceGate,
		accountsGate:  c.AccountsGate,
		now:           c.Now,
		log:           c.Log,
	}
	login := &login{client: client, userID: c.AdminUserID, secret: c.Secret}
	client.tokens = &imclient.Credentials{Make: login.token, Now: c.Now, Kept: func(err error) {
		c.Log.Warn().Err(err).Msg("the admin token could not be renewed ahead of its expiry; the old one is used on")
	}}
	return client, nil
}

// Close closes the idle connections.
func (c *Client) Close() { c.http.Close() }

// Ping makes one account_check of the admin user itself, which proves the
// address, the secret and the admin right. Its errors are CheckAccounts'.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.CheckAccounts(ctx, []string{c.adminUserID})
	return err
}
