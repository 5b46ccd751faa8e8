// Package openim queries an OpenIM server, v3.0 or newer, for the presence of users and
// for which users are registered, through its REST API.
//
// It logs in as an administrator and keeps the token, classifies every known code, and
// retries in two cases only: once with a new token after one was refused, and once for
// users that an answer left out. All other failures are for the caller (package jobs), by
// their class. Users' session tokens and connection ids, which the server sends along,
// are dropped while decoding. Package imclient has what all providers share;
// internal/imsim simulates the server.
package openim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
)

// Config configures a Client. BaseURL, AdminUserID and Secret are required.
type Config struct {
	BaseURL     string // the API's address, e.g. http://127.0.0.1:10002
	AdminUserID string // one of the server's imAdminUserIDs, preferably used by syncer alone
	Secret      string // the server's secret (share.yml)
	// PresenceBatch and AccountsBatch are the ids per call: 1 to 2000, 500 by default.
	// They are not settings: OpenIM's only limit is that of its internal messages, beyond
	// which it reports everyone offline, and 500 ids stay far below it.
	PresenceBatch, AccountsBatch int
	// The gates limit the calls of each API, but not logins. A nil gate does not limit them.
	PresenceGate, AccountsGate *imclient.Gate
	Log                        zerolog.Logger
	// HTTPConfig has its defaults; New sets Provider. The server has no timeout of its own.
	imclient.HTTPConfig
}

const (
	defaultBatch = 500
	// maxBatch keeps an answer well below the 4 MiB of gRPC in v3.8.0 to v3.8.3, with
	// 2 KiB for the connections and tokens of each user.
	maxBatch = 2000
)

// validate joins all faults. Fields that are settings have the names of the settings.
func (c Config) validate() error {
	faults := []error{imclient.CheckBaseURL(c.BaseURL), c.HTTPConfig.Validate()}
	if fault := CheckUserID(c.AdminUserID); fault != "" {
		faults = append(faults, fmt.Errorf("admin_user_id: %s", fault))
	}
	if c.Secret == "" {
		faults = append(faults, errors.New("secret is missing"))
	}
	if c.PresenceBatch < 1 || c.PresenceBatch > maxBatch {
		faults = append(faults, fmt.Errorf("PresenceBatch is %d (allowed: 1 to %d)", c.PresenceBatch, maxBatch))
	}
	if c.AccountsBatch < 1 || c.AccountsBatch > maxBatch {
		faults = append(faults, fmt.Errorf("AccountsBatch is %d (allowed: 1 to %d)", c.AccountsBatch, maxBatch))
	}
	return errors.Join(faults...)
}

// Client queries one server. Safe for concurrent use.
type Client struct {
	exchange                   *imclient.Exchange
	base                       string
	presence, status, accounts imclient.Call
	adminUserID, secret        string
	loginPath                  int // of loginPaths, the one that worked last
	now                        func() time.Time
}

// New returns a client. It makes no call; the first call logs in.
func New(c Config) (*Client, error) {
	c.PresenceBatch = cmp.Or(c.PresenceBatch, defaultBatch)
	c.AccountsBatch = cmp.Or(c.AccountsBatch, defaultBatch)
	c.HTTPConfig = c.HTTPConfig.WithDefaults(imclient.ProviderOpenIM)
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("openim client: %w", err)
	}
	base := strings.TrimRight(c.BaseURL, "/")
	client := &Client{
		base:        base,
		presence:    imclient.Call{API: apiPresence, URL: base + "/user/" + apiPresence, Gate: c.PresenceGate, MaxUsers: c.PresenceBatch, BytesPerUser: maxPresenceBytes},
		status:      imclient.Call{API: apiUsersStatus, URL: base + "/user/" + apiUsersStatus, Gate: c.PresenceGate, MaxUsers: c.PresenceBatch, BytesPerUser: maxLineBytes},
		accounts:    imclient.Call{API: apiAccountCheck, URL: base + "/user/" + apiAccountCheck, Gate: c.AccountsGate, MaxUsers: c.AccountsBatch, BytesPerUser: maxLineBytes},
		adminUserID: c.AdminUserID,
		secret:      c.Secret,
		now:         c.Now,
	}
	client.exchange = &imclient.Exchange{
		HTTP: imclient.NewHTTP(c.HTTPConfig),
		Credentials: &imclient.Credentials{Make: client.login, Now: c.Now, Kept: func(err error) {
			c.Log.Warn().Err(err).Msg("the admin token could not be renewed ahead of its expiry; the old one is used on")
		}},
		Secret:  c.Secret,
		Log:     c.Log,
		NewID:   client.operationID,
		IDName:  "operation_id",
		TraceID: true,
		Sign: func(r *http.Request, opID, token string) {
			r.Header.Set("operationID", opID)
			if token != "" {
				r.Header.Set("token", token)
			}
		},
		Meaning: meaningOf,
		Refuses: client.refuses,
		Advice:  func() string { return fixToken },
	}
	return client, nil
}

// operationID returns the id of a call, by which the server's log names it. It stays below
// 32 characters, the length from which CleanText takes a word for a secret.
func (c *Client) operationID() string {
	return "syncer-" + strconv.FormatInt(c.now().UnixMilli(), 36) + "-" + strconv.FormatUint(rand.Uint64(), 36)
}

// refuses reports whether a token is "not valid yet" for longer than the difference of
// the clocks explains.
func (c *Client) refuses(code string, token imclient.Credential) bool {
	return code == strconv.Itoa(codeNotYetValid) && c.now().Sub(token.IssuedAt) > patienceNotYet
}

// Close closes the idle connections.
func (c *Client) Close() { c.exchange.HTTP.Close() }

// Ping makes one account_check of the administrator itself, which tests the address, the
// secret and the administrator's right. Its errors are those of CheckAccounts.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.CheckAccounts(ctx, []string{c.adminUserID})
	return err
}
