package imsim

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// OpenIM is the simulated OpenIM server.
type OpenIM struct {
	AdminUserID string
	Secret      string // what a login needs, and what tokens are signed with
	// TokenTTL is how long a token is valid; 0 means the server's default of 90 days.
	TokenTTL time.Duration
	// Version selects the format of answers; "" means OpenIM383.
	Version OpenIMVersion
	// PresenceRate and AccountsRate are the most calls of one API in any second,
	// above which the answer is HTTP 429; 0 means unlimited, as in a real server.
	PresenceRate, AccountsRate int
	// HookURL is the url of webhooks.yml, where hooks are sent; "" means none. Its last part
	// is the receiver's secret.
	HookURL string
	// HooksBefore35 sends hooks as v3.0 to v3.4 do, with the command in the query.
	HooksBefore35 bool
}

// OpenIMVersion distinguishes servers whose answers differ.
type OpenIMVersion string

// The versions with captured answers.
const (
	OpenIM380  OpenIMVersion = "3.8.0" // statuses as strings, login by /auth/user_token
	OpenIM383  OpenIMVersion = "3.8.3" // statuses as integers, login by /auth/get_admin_token
	OpenIMMain OpenIMVersion = "main"  // the next release: a new admin token ends the older ones after 5 minutes
)

// The paths of the OpenIM APIs.
const (
	PathOpenIMPresence    = "/user/get_users_online_status"
	PathOpenIMAccounts    = "/user/account_check"
	PathOpenIMUsersStatus = "/user/get_users_status"
	PathAdminToken        = "/auth/get_admin_token" // from 3.8.1 on
	PathUserToken         = "/auth/user_token"      // before 3.8.1
	PathParseToken        = "/auth/parse_token"
)

// openIM is an OpenIM server of one version.
type openIM struct {
	server *Server
	config OpenIM
	tokens *tokens
}

func newOpenIM(s *Server, c OpenIM) *openIM {
	if c.Version == "" {
		c.Version = OpenIM383
	}
	if c.TokenTTL == 0 {
		c.TokenTTL = 90 * 24 * time.Hour
	}
	return &openIM{server: s, config: c, tokens: newTokens(c)}
}

func (o *openIM) apis() []*api {
	const mangled = `{"errCode":"0","errMsg":1,"errDlt":null,"data":{"userID":1,"status":[],"results":"none"}}`
	login := api{backend: o, poison: 1001, mangled: mangled, list: openIMHead + `{"token":[`, parse: func([]byte) (request, *failure) { return request{}, nil }}
	path, answer := PathAdminToken, o.adminToken
	if o.config.Version == OpenIM380 {
		path, answer = PathUserToken, o.userToken
	}
	logins := []*api{new(login), new(login)}
	logins[0].path, logins[0].answer = path, answer
	logins[1].path, logins[1].answer = PathParseToken, o.parseToken
	presence := &limiter{rate: o.config.PresenceRate}
	return append(logins,
		&api{path: PathOpenIMPresence, kind: OpenIMPresence, backend: o, limit: presence,
			parse: o.parsePresence, answer: o.presence, poison: 1001, mangled: mangled, list: openIMHead + `[`},
		&api{path: PathOpenIMUsersStatus, kind: OpenIMPresence, backend: o, limit: presence,
			parse: o.parsePresence, answer: o.usersStatus, poison: 1001, mangled: mangled, merged: true, list: openIMHead + `{"statusList":[`},
		&api{path: PathOpenIMAccounts, kind: OpenIMAccounts, backend: o, limit: &limiter{rate: o.config.AccountsRate},
			parse: o.parseAccounts, answer: o.accounts, poison: 1001, mangled: mangled, list: openIMHead + `{"results":[`},
	)
}

func (o *openIM) nonce(r *http.Request) string { return r.Header.Get("operationID") }

func (o *openIM) zips() bool { return true }

// refuse checks the headers.
func (o *openIM) refuse(c *call) *failure {
	if c.http.Header.Get("operationID") == "" {
		return o.missing("header must have operationID")
	}
	if c.api.kind == 0 {
		return nil
	}
	token := c.http.Header.Get("token")
	if token == "" {
		f := o.missing("header must have token")
		f.why = unauthorised
		return f
	}
	now := o.server.now()
	claims, why := o.tokens.check(token, now)
	if why != nil && !why.parsing {
		if h := c.hit(FaultAuthOld); h != nil && o.tokens.cached(token, now, cmp.Or(h.For, authCacheFor)) {
			why = nil
		}
	}
	if why != nil {
		return o.tokenFailure(why, token)
	}
	if h := c.hit(FaultAuthLag); h != nil && o.tokens.age(token, now) < time.Duration(or(int(h.Delay), int(50*time.Millisecond))) {
		return o.tokenFailure(errTokenNotExist, token)
	}
	if claims.UserID != o.config.AdminUserID {
		return o.notAdminUser(c.api, claims.UserID)
	}
	return nil
}

// missing returns an ArgsError of the API server, before the service behind it.
func (o *openIM) missing(detail string) *failure {
	if o.config.Version == OpenIM380 {
		detail += ": 1001 ArgsError"
	}
	return &failure{code: 1001, text: "ArgsError", detail: detail}
}

// fromService returns an error of the service, which 3.8.0 packs into one text.
func (o *openIM) fromService(code int, name, detail string) *failure {
	if o.config.Version == OpenIM380 {
		text := detail + ": " + strconv.Itoa(code) + " " + name
		return &failure{code: code, text: text, detail: text}
	}
	return &failure{code: code, text: name, detail: detail}
}

// tokenFailure contains the caller's token in errDlt, as in 3.8.3: clients must keep
// it out of their errors.
func (o *openIM) tokenFailure(e *tokenError, token string) *failure {
	f := &failure{code: e.code, text: e.name, why: unauthorised}
	numbered := strconv.Itoa(e.code) + " " + e.name
	if e.code == 1505 && o.config.Version != OpenIM380 {
		f.text = "signature is invalid"
		numbered = "1505 signature is invalid"
	}
	switch {
	case o.config.Version == OpenIM380:
		f.text, f.detail = numbered, numbered
	case o.config.Version == OpenIM383 && e.parsing:
		f.detail = numbered + " jwt parse error, token=" + token
	case o.config.Version == OpenIM383:
		f.detail = e.name
	}
	return f
}

func (o *openIM) tooMany() *failure {
	h := http.Header{}
	h.Set("Retry-After", "1")
	h.Set("X-Ratelimit-Limit", "0")
	h.Set("X-Ratelimit-Policy", "BBR")
	h.Set("X-Ratelimit-Remaining", "0")
	h.Set("Content-Type", "text/plain; charset=utf-8") // although it is JSON
	h.Set("Connection", "close")
	return &failure{
		code: 429, text: "too many requests, please try again later",
		status: http.StatusTooManyRequests, header: h, why: rateLimited,
	}
}

func (o *openIM) notAdmin(a *api) *failure { return o.notAdminUser(a, o.config.AdminUserID) }

func (o *openIM) notAdminUser(a *api, userID string) *failure {
	if a.kind == OpenIMAccounts {
		return o.fromService(1002, "NoPermissionError", "user "+userID+" is not admin userID")
	}
	return o.fromService(1002, "NoPermissionError", "only app manager")
}

func (o *openIM) coded(code int, text string) *failure {
	if text == "" {
		text = "simulated error " + strconv.Itoa(code)
	}
	return &failure{code: code, text: text, detail: text}
}

func (o *openIM) failed(b []byte, f *failure) []byte {
	b = append(b, `{"errCode":`...)
	b = strconv.AppendInt(b, int64(f.code), 10)
	b = append(b, `,"errMsg":`...)
	b = appendJSONString(b, f.text)
	b = append(b, `,"errDlt":`...)
	b = appendJSONString(b, f.detail)
	return append(b, '}')
}

// stringsIn returns an array of strings in a JSON object; nil if it is missing or
// null.
func stringsIn(body []byte, field string) ([]string, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, err
	}
	var values []string
	err := json.Unmarshal(orNull(fields[field]), &values)
	return values, err
}

// parsePresence reads {"userIDs":["id",…]}. An unreadable body is HTTP 400 with code
// 500.
func (o *openIM) parsePresence(body []byte) (request, *failure) {
	ids, err := stringsIn(body, "userIDs")
	if err != nil {
		f := &failure{code: 500, text: "ServerInternalError", detail: "unexpected EOF", status: http.StatusBadRequest}
		if o.config.Version == OpenIM380 {
			f.text, f.detail = "unexpected EOF", ""
		}
		return request{}, f
	}
	return request{ids: ids}, nil
}

// parseAccounts reads {"checkUserIDs":["id",…]}. A repeated id fails the call.
func (o *openIM) parseAccounts(body []byte) (request, *failure) {
	ids, err := stringsIn(body, "checkUserIDs")
	r := request{ids: ids}
	switch {
	case err != nil:
		return r, o.missing(err.Error())
	case ids == nil:
		return r, o.missing("CheckUserIDs is empty")
	case len(ids) == 0 && o.config.Version == OpenIM380:
		const text = "CheckUserIDs is empty: 1001 ArgsError"
		return r, &failure{code: 2, text: text, detail: "2 " + text}
	case len(ids) == 0 && o.config.Version == OpenIM383:
		return r, o.missing("CheckUserIDs is empty")
	case hasDuplicate(ids):
		return r, o.fromService(1001, "ArgsError", "userID repeated")
	}
	return r, nil
}

// knows reports whether an id is registered, as the admin's is.
func (o *openIM) knows(c *call, userID string) bool {
	return userID == o.config.AdminUserID || o.server.users.Imported(userID, c.at)
}

// connected returns the devices of a user that have a connection. OpenIM has no push
// state, and an unknown user looks offline.
func (o *openIM) connected(c *call, userID string) []Device {
	if !o.knows(c, userID) {
		return nil
	}
	return slices.DeleteFunc(o.server.look(c, userID), func(d Device) bool { return d.Mode == Push })
}
