package imsim

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Tencent is the simulated Tencent Chat app.
type Tencent struct {
	SDKAppID  uint64
	Admins    []string // identifiers that may call
	SecretKey string   // key of valid UserSigs
	// PresenceRate and AccountsRate are the most calls of one API in any second; 0
	// means the documented 200 and 100, below 0 means unlimited.
	PresenceRate, AccountsRate int
	// PresenceLimit and AccountsLimit are the most ids of one call; 0 means the
	// documented 500 and 100.
	PresenceLimit, AccountsLimit int
	// HookURL is the callback URL of the app, where hooks are sent; "" means none. They are
	// signed with HookToken, if there is one.
	HookURL, HookToken string
}

// The paths of the Tencent APIs. The first is the older name of the second.
const (
	PathQueryState        = "/v4/openim/querystate"
	PathQueryOnlineStatus = "/v4/openim/query_online_status"
	PathTencentAccounts   = "/v4/im_open_login_svc/account_check"
)

// tencent is a Tencent Chat app. Its answers are always HTTP 200, with the result in
// ErrorCode.
type tencent struct {
	server *Server
	config Tencent

	mu sync.Mutex
	// newest is the newest TLS.time accepted; signatures up to revoked are refused.
	newest, revoked int64
}

func newTencent(s *Server, c Tencent) *tencent {
	return &tencent{server: s, config: c, revoked: -1 << 63}
}

// or returns v, or otherwise if v is zero.
func or(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}

func (t *tencent) apis() []*api {
	presence := func(path string, names *[numPlatforms]tencentPlatform, both bool) *api {
		return &api{
			path: path, kind: TencentPresence, backend: t, poison: 90003,
			limit: &limiter{rate: or(t.config.PresenceRate, 200)},
			parse: t.parsePresence,
			answer: func(b []byte, c *call) ([]byte, *failure) {
				return t.presence(b, c, names, both), nil
			},
			list:    `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[`,
			mangled: `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":"0","QueryResult":{"To_Account":1,"Status":true,"Detail":"none"}}`,
		}
	}
	return []*api{
		presence(PathQueryState, &oldTencentPlatforms, false),
		presence(PathQueryOnlineStatus, &tencentPlatforms, true),
		{
			path: PathTencentAccounts, kind: TencentAccounts, backend: t, poison: 70402,
			limit: &limiter{rate: or(t.config.AccountsRate, 100)},
			parse: t.parseAccounts,
			answer: func(b []byte, c *call) ([]byte, *failure) {
				return t.accounts(b, c), nil
			},
			list:    `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"ResultItem":[`,
			mangled: `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":"0","ResultItem":{"UserID":1,"ResultCode":"none","AccountStatus":false}}`,
		},
	}
}

func (t *tencent) nonce(r *http.Request) string { return r.URL.Query().Get("random") }

func (t *tencent) zips() bool { return false }

// refuse checks the query parameters. Source: "RESTful API Overview" and "Error
// Codes".
func (t *tencent) refuse(c *call) *failure {
	q := c.http.URL.Query()
	identifier := q.Get("identifier")
	appID, err := strconv.ParseUint(q.Get("sdkappid"), 10, 64)
	_, badRandom := strconv.ParseUint(q.Get("random"), 10, 32)
	switch {
	case c.http.Method != http.MethodPost:
		return t.coded(60002, "the HTTP request could not be parsed: POST is required")
	case q.Get("sdkappid") == "":
		return t.coded(60012, "sdkappid is missing")
	case err != nil:
		return t.coded(60006, "sdkappid is not valid")
	case q.Get("contenttype") != "json":
		return t.coded(60025, "contenttype must be json")
	case badRandom != nil:
		return t.coded(60002, "random must be an unsigned 32-bit integer")
	case identifier == "":
		return t.coded(60010, "identifier is not an app admin")
	case len(c.body) == 0:
		return t.coded(60003, "the HTTP body is empty")
	case appID != t.config.SDKAppID:
		return t.coded(70020, "SDKAppID not found")
	}
	if f := t.checkSig(q.Get("usersig"), identifier); f != nil {
		f.why = unauthorised
		return f
	}
	if !slices.Contains(t.config.Admins, identifier) {
		return t.notAdmin(c.api)
	}
	return nil
}

// checkSig verifies a UserSig as documented.
func (t *tencent) checkSig(usersig, identifier string) *failure {
	if usersig == "" {
		return t.coded(70002, "UserSig is empty")
	}
	sig, err := parseUserSig(usersig)
	switch {
	case err != nil:
		return t.coded(70003, "UserSig is malformed")
	case *sig.Identifier != identifier:
		return t.coded(70013, "identifier does not match the UserSig")
	case *sig.SDKAppID != t.config.SDKAppID:
		return t.coded(70014, "SDKAppID does not match the UserSig")
	case !sig.signedBy(t.config.SecretKey):
		return t.coded(70009, "UserSig verification failed: it may have been made with another app's key")
	case sig.expired(t.server.now()):
		return t.coded(70001, "UserSig has expired")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if *sig.Time <= t.revoked {
		return t.coded(70052, "UserSig is no longer valid, make a new one")
	}
	t.newest = max(t.newest, *sig.Time)
	return nil
}

// revoke invalidates all signatures seen so far.
func (t *tencent) revoke() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.revoked = max(t.revoked, t.newest)
}

func (t *tencent) tooMany() *failure {
	f := t.coded(60007, "the call frequency of this REST API exceeds its limit")
	f.why = rateLimited
	return f
}

// notAdmin returns the code in the document of the API.
func (t *tencent) notAdmin(a *api) *failure {
	if a.kind == TencentAccounts {
		return t.coded(70403, "app admin permissions are required")
	}
	return t.coded(90009, "app admin permissions are required")
}

func (t *tencent) coded(code int, text string) *failure {
	if text == "" {
		text = "simulated error " + strconv.Itoa(code)
	}
	return &failure{code: code, text: text}
}

func (t *tencent) failed(b []byte, f *failure) []byte {
	return append(t.failHead(b, f), '}')
}

func (t *tencent) failHead(b []byte, f *failure) []byte {
	b = append(b, `{"ActionStatus":"FAIL","ErrorInfo":`...)
	b = appendJSONString(b, f.text)
	b = append(b, `,"ErrorCode":`...)
	return strconv.AppendInt(b, int64(f.code), 10)
}

// knows reports whether an account with this id exists at a time.
func (t *tencent) knows(userID string, at time.Time) bool {
	return slices.Contains(t.config.Admins, userID) || t.server.users.Imported(userID, at)
}
