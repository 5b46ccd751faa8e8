package imsim

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newOpenIMBench(t *testing.T, v OpenIMVersion) *bench {
	b := newBench(t, func(c *Config) { c.OpenIM.Version = v })
	b.Users().Set("u1", Device{IOS, Online}, Device{Web, Online})
	b.Users().Set("u2", Device{Android, Background})
	b.Users().Set("u3", Device{Android, Push})
	return b
}

// madeUp replaces what differs from server to server.
var madeUp = regexp.MustCompile(`"(connID|token)":"[^"]*(SIMCONN|SIMTOKEN)[0-9a-f]+"`)

func TestOpenIMPresence(t *testing.T) {
	const (
		asked   = `{"userIDs":["u1","ghost","imAdmin","u2","u3","u1",""]}`
		integer = `{"errCode":0,"errMsg":"","errDlt":"","data":[` +
			`{"userID":"u1","status":1,"detailPlatformStatus":[{"platformID":1,"connID":"SIMCONN","isBackground":false,"token":"SIMTOKEN"},{"platformID":5,"connID":"SIMCONN","isBackground":false,"token":"SIMTOKEN"}]},` +
			`{"userID":"ghost","status":0,"detailPlatformStatus":null},{"userID":"imAdmin","status":0,"detailPlatformStatus":null},` +
			`{"userID":"u2","status":1,"detailPlatformStatus":[{"platformID":2,"connID":"SIMCONN","isBackground":true,"token":"SIMTOKEN"}]},` +
			`{"userID":"u3","status":0,"detailPlatformStatus":null},` +
			`{"userID":"u1","status":1,"detailPlatformStatus":[{"platformID":1,"connID":"SIMCONN","isBackground":false,"token":"SIMTOKEN"},{"platformID":5,"connID":"SIMCONN","isBackground":false,"token":"SIMTOKEN"}]},` +
			`{"userID":"","status":0,"detailPlatformStatus":null}]}`
	)
	text := strings.NewReplacer(
		`"status":1`, `"status":"online"`, `"status":0`, `"status":"offline"`, `"platformID":1`, `"platform":"IOS","status":"online"`,
		`"platformID":2`, `"platform":"Android","status":"online"`, `"platformID":5`, `"platform":"Web","status":"online"`,
	).Replace(integer)
	for version, want := range map[OpenIMVersion]string{OpenIM380: text, OpenIM383: integer, OpenIMMain: integer} {
		t.Run(string(version), func(t *testing.T) {
			b := newOpenIMBench(t, version)
			got := madeUp.ReplaceAllString(b.openIMCall(PathOpenIMPresence, asked), `"$1":"$2"`)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			for _, body := range []string{`{"userIDs":[]}`, `{"userIDs":null}`, `{}`} {
				if got := b.openIMCall(PathOpenIMPresence, body); got != `{"errCode":0,"errMsg":"","errDlt":"","data":null}` {
					t.Errorf("%s answered by %s", body, got)
				}
			}
		})
	}
}

// TestOpenIMErrors compares with errors captured from real servers.
func TestOpenIMErrors(t *testing.T) {
	type answers map[OpenIMVersion]string
	const (
		online = PathOpenIMPresence
		check  = PathOpenIMAccounts
	)
	errors := []struct {
		name, path, body string
		change           func(b *bench, h http.Header)
		status           int
		want             answers
	}{
		{name: "no operationID", path: online, body: `{}`, change: func(_ *bench, h http.Header) { h.Del("operationID") }, want: answers{
			OpenIM380:  `{"errCode":1001,"errMsg":"ArgsError","errDlt":"header must have operationID: 1001 ArgsError"}`,
			OpenIM383:  `{"errCode":1001,"errMsg":"ArgsError","errDlt":"header must have operationID"}`,
			OpenIMMain: `{"errCode":1001,"errMsg":"ArgsError","errDlt":"header must have operationID"}`}},
		{name: "no token", path: online, body: `{}`, change: func(_ *bench, h http.Header) { h.Del("token") }, want: answers{
			OpenIM380:  `{"errCode":1001,"errMsg":"ArgsError","errDlt":"header must have token: 1001 ArgsError"}`,
			OpenIM383:  `{"errCode":1001,"errMsg":"ArgsError","errDlt":"header must have token"}`,
			OpenIMMain: `{"errCode":1001,"errMsg":"ArgsError","errDlt":"header must have token"}`}},
		{name: "garbage token", path: online, body: `{}`, change: func(_ *bench, h http.Header) { h.Set("token", "garbage") }, want: answers{
			OpenIM380:  `{"errCode":1503,"errMsg":"1503 TokenMalformedError","errDlt":"1503 TokenMalformedError"}`,
			OpenIM383:  `{"errCode":1503,"errMsg":"TokenMalformedError","errDlt":"1503 TokenMalformedError jwt parse error, token=garbage"}`,
			OpenIMMain: `{"errCode":1503,"errMsg":"TokenMalformedError","errDlt":""}`}},
		{name: "token of another server", path: online, body: `{}`, change: func(b *bench, h http.Header) {
			h.Set("token", newTokens(OpenIM{Secret: "other"}).issue("imAdmin", 10, time.Hour, b.clock.now()))
		}, want: answers{
			OpenIM380:  `{"errCode":1505,"errMsg":"1505 TokenUnknownError","errDlt":"1505 TokenUnknownError"}`,
			OpenIM383:  `{"errCode":1505,"errMsg":"signature is invalid","errDlt":"1505 signature is invalid jwt parse error, token=TOKEN"}`,
			OpenIMMain: `{"errCode":1505,"errMsg":"signature is invalid","errDlt":""}`}},
		{name: "expired token", path: online, body: `{}`, change: func(b *bench, h http.Header) {
			h.Set("token", b.IssueToken("imAdmin", -time.Second))
		}, want: answers{
			OpenIM380:  `{"errCode":1501,"errMsg":"1501 TokenExpiredError","errDlt":"1501 TokenExpiredError"}`,
			OpenIM383:  `{"errCode":1501,"errMsg":"TokenExpiredError","errDlt":"1501 TokenExpiredError jwt parse error, token=TOKEN"}`,
			OpenIMMain: `{"errCode":1501,"errMsg":"TokenExpiredError","errDlt":""}`}},
		{name: "token of the future", path: online, body: `{}`, change: func(b *bench, h http.Header) {
			h.Set("token", b.openIM.tokens.issue("imAdmin", 10, 2*time.Hour, b.clock.now().Add(time.Hour)))
		}, want: answers{
			OpenIM380:  `{"errCode":1504,"errMsg":"1504 TokenNotValidYetError","errDlt":"1504 TokenNotValidYetError"}`,
			OpenIM383:  `{"errCode":1504,"errMsg":"TokenNotValidYetError","errDlt":"1504 TokenNotValidYetError jwt parse error, token=TOKEN"}`,
			OpenIMMain: `{"errCode":1504,"errMsg":"TokenNotValidYetError","errDlt":""}`}},
		{name: "kicked token", path: online, body: `{}`, change: func(b *bench, _ http.Header) { b.KickTokens() }, want: answers{
			OpenIM380:  `{"errCode":1506,"errMsg":"1506 TokenKickedError","errDlt":"1506 TokenKickedError"}`,
			OpenIM383:  `{"errCode":1506,"errMsg":"TokenKickedError","errDlt":"TokenKickedError"}`,
			OpenIMMain: `{"errCode":1506,"errMsg":"TokenKickedError","errDlt":""}`}},
		{name: "forgotten token", path: online, body: `{"userIDs":["ghost"]}`, change: func(b *bench, _ http.Header) { b.ForgetTokens() }, want: answers{
			OpenIM380:  `{"errCode":1507,"errMsg":"1507 TokenNotExistError","errDlt":"1507 TokenNotExistError"}`,
			OpenIM383:  `{"errCode":0,"errMsg":"","errDlt":"","data":[{"userID":"ghost","status":0,"detailPlatformStatus":null}]}`,
			OpenIMMain: `{"errCode":1507,"errMsg":"TokenNotExistError","errDlt":""}`}},
		{name: "not admin", path: online, body: `{"userIDs":["u1"]}`, change: func(b *bench, h http.Header) {
			h.Set("token", b.IssueToken("u1", time.Hour))
		}, want: answers{
			OpenIM380:  `{"errCode":1002,"errMsg":"only app manager: 1002 NoPermissionError","errDlt":"only app manager: 1002 NoPermissionError"}`,
			OpenIM383:  `{"errCode":1002,"errMsg":"NoPermissionError","errDlt":"only app manager"}`,
			OpenIMMain: `{"errCode":1002,"errMsg":"NoPermissionError","errDlt":"only app manager"}`}},
		{name: "not admin", path: check, body: `{"checkUserIDs":["u1"]}`, change: func(b *bench, h http.Header) {
			h.Set("token", b.IssueToken("u1", time.Hour))
		}, want: answers{
			OpenIM380:  `{"errCode":1002,"errMsg":"user u1 is not admin userID: 1002 NoPermissionError","errDlt":"user u1 is not admin userID: 1002 NoPermissionError"}`,
			OpenIM383:  `{"errCode":1002,"errMsg":"NoPermissionError","errDlt":"user u1 is not admin userID"}`,
			OpenIMMain: `{"errCode":1002,"errMsg":"NoPermissionError","errDlt":"user u1 is not admin userID"}`}},
		{name: "bad JSON", path: online, body: `{"userIDs":["u1"`, status: http.StatusBadRequest, want: answers{
			OpenIM380:  `{"errCode":500,"errMsg":"unexpected EOF","errDlt":""}`,
			OpenIM383:  `{"errCode":500,"errMsg":"ServerInternalError","errDlt":"unexpected EOF"}`,
			OpenIMMain: `{"errCode":500,"errMsg":"ServerInternalError","errDlt":"unexpected EOF"}`}},
		{name: "repeated", path: check, body: `{"checkUserIDs":["u1","u2","u1"]}`, want: answers{
			OpenIM380:  `{"errCode":1001,"errMsg":"userID repeated: 1001 ArgsError","errDlt":"userID repeated: 1001 ArgsError"}`,
			OpenIM383:  `{"errCode":1001,"errMsg":"ArgsError","errDlt":"userID repeated"}`,
			OpenIMMain: `{"errCode":1001,"errMsg":"ArgsError","errDlt":"userID repeated"}`}},
		{name: "empty", path: check, body: `{"checkUserIDs":[]}`, want: answers{
			OpenIM380:  `{"errCode":2,"errMsg":"CheckUserIDs is empty: 1001 ArgsError","errDlt":"2 CheckUserIDs is empty: 1001 ArgsError"}`,
			OpenIM383:  `{"errCode":1001,"errMsg":"ArgsError","errDlt":"CheckUserIDs is empty"}`,
			OpenIMMain: `{"errCode":0,"errMsg":"","errDlt":"","data":{"results":null}}`}},
		{name: "null", path: check, body: `{"checkUserIDs":null}`, want: answers{
			OpenIM380:  `{"errCode":1001,"errMsg":"ArgsError","errDlt":"CheckUserIDs is empty: 1001 ArgsError"}`,
			OpenIM383:  `{"errCode":1001,"errMsg":"ArgsError","errDlt":"CheckUserIDs is empty"}`,
			OpenIMMain: `{"errCode":1001,"errMsg":"ArgsError","errDlt":"CheckUserIDs is empty"}`}},
		{name: "mixed", path: check, body: `{"checkUserIDs":["u1","ghost","imAdmin","u2"]}`, want: answers{
			OpenIM380:  `{"errCode":0,"errMsg":"","errDlt":"","data":{"results":[{"userID":"u1","accountStatus":"registered"},{"userID":"ghost","accountStatus":"unregistered"},{"userID":"imAdmin","accountStatus":"registered"},{"userID":"u2","accountStatus":"registered"}]}}`,
			OpenIM383:  `{"errCode":0,"errMsg":"","errDlt":"","data":{"results":[{"userID":"u1","accountStatus":1},{"userID":"ghost","accountStatus":0},{"userID":"imAdmin","accountStatus":1},{"userID":"u2","accountStatus":1}]}}`,
			OpenIMMain: `{"errCode":0,"errMsg":"","errDlt":"","data":{"results":[{"userID":"u1","accountStatus":1},{"userID":"ghost","accountStatus":0},{"userID":"imAdmin","accountStatus":1},{"userID":"u2","accountStatus":1}]}}`}},
		{name: "users status", path: PathOpenIMUsersStatus, body: `{"userID":"imAdmin","userIDs":["u1","u2","ghost"]}`, want: answers{
			OpenIM380:  `{"errCode":0,"errMsg":"","errDlt":"","data":{"statusList":[{"userID":"u1","status":1,"platformIDs":[1,5]},{"userID":"u2","status":1,"platformIDs":[2]},{"userID":"ghost","status":0,"platformIDs":null}]}}`,
			OpenIM383:  `{"errCode":0,"errMsg":"","errDlt":"","data":{"statusList":[{"userID":"u1","status":1,"platformIDs":[1,5]},{"userID":"u2","status":1,"platformIDs":[2]},{"userID":"ghost","status":0,"platformIDs":null}]}}`,
			OpenIMMain: `{"errCode":0,"errMsg":"","errDlt":"","data":{"statusList":[{"userID":"u1","status":1,"platformIDs":[1,5]},{"userID":"u2","status":1,"platformIDs":[2]},{"userID":"ghost","status":0,"platformIDs":null}]}}`}},
	}
	for _, tt := range errors {
		for version, want := range tt.want {
			t.Run(tt.path+" "+tt.name+" "+string(version), func(t *testing.T) {
				b := newOpenIMBench(t, version)
				h := b.headers(b.login())
				if tt.change != nil {
					tt.change(b, h)
				}
				g := b.must("POST", tt.path, h, tt.body)
				if token := h.Get("token"); len(token) > 20 {
					g.body = strings.ReplaceAll(g.body, token, "TOKEN")
				}
				if diff := cmp.Diff(want, g.body); diff != "" {
					t.Errorf("answer (-want +got):\n%s", diff)
				}
				if wantStatus := or(tt.status, http.StatusOK); g.status != wantStatus {
					t.Errorf("HTTP status %d, want %d", g.status, wantStatus)
				}
			})
		}
	}
}

func TestOpenIMLogin(t *testing.T) {
	const (
		noSecret380 = `{"errCode":1002,"errMsg":"secret invalid: 1002 NoPermissionError","errDlt":"secret invalid: 1002 NoPermissionError"}`
		noSecret    = `{"errCode":1002,"errMsg":"NoPermissionError","errDlt":"secret invalid"}`
		noUser380   = `{"errCode":1004,"errMsg":"1004 userID not found: 1004 RecordNotFoundError userID not found: 1004 RecordNotFoundError","errDlt":"1004 userID not found: 1004 RecordNotFoundError userID not found: 1004 RecordNotFoundError"}`
		noUser      = `{"errCode":1001,"errMsg":"ArgsError","errDlt":"userID is error., userID=nobody, adminUserID=[imAdmin]"}`
		notFound    = "404 page not found"
		badSecret   = `{"secret":"wrong","userID":"imAdmin","platformID":10}`
		badUser     = `{"secret":"` + testSecret + `","userID":"nobody","platformID":10}`
	)
	tests := []struct {
		version          OpenIMVersion
		path, body, want string
	}{
		{OpenIM380, PathUserToken, badSecret, noSecret380},
		{OpenIM380, PathUserToken, badUser, noUser380},
		{OpenIM380, PathAdminToken, badUser, notFound},
		{OpenIM380, PathUserToken, `{"secret":"` + testSecret + `","userID":"imAdmin"}`, `{"errCode":1001,"errMsg":"ArgsError","errDlt":"platformID is invalid: 1001 ArgsError"}`},
		{OpenIM380, PathUserToken, `{"secret":"` + testSecret + `","platformID":10}`, `{"errCode":1001,"errMsg":"ArgsError","errDlt":"userID is empty: 1001 ArgsError"}`},
		{OpenIM383, PathParseToken, `{"token":"x"}`, `{"errCode":1503,"errMsg":"TokenMalformedError","errDlt":"1503 TokenMalformedError jwt parse error, token=x"}`},
		{OpenIM383, PathAdminToken, badSecret, noSecret},
		{OpenIM383, PathAdminToken, badUser, noUser},
		{OpenIM383, PathUserToken, badUser, notFound},
		{OpenIMMain, PathAdminToken, badSecret, noSecret},
		{OpenIMMain, PathAdminToken, badUser, noUser},
	}
	for _, tt := range tests {
		b := newOpenIMBench(t, tt.version)
		if g := b.must("POST", tt.path, b.headers(""), tt.body); g.body != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.version, tt.path, g.body, tt.want)
		}
	}
	b := newOpenIMBench(t, OpenIM383)
	if g := b.must("GET", PathAdminToken, b.headers(""), ""); g.status != http.StatusNotFound || g.body != notFound {
		t.Errorf("GET: HTTP %d %s", g.status, g.body)
	}
	if g := b.must("POST", PathAdminToken, nil, badUser); !strings.Contains(g.body, "header must have operationID") {
		t.Errorf("without operationID: %s", g.body)
	}
}

func TestOpenIMTokenLife(t *testing.T) {
	for _, version := range []OpenIMVersion{OpenIM380, OpenIM383, OpenIMMain} {
		t.Run(string(version), func(t *testing.T) {
			b := newOpenIMBench(t, version)
			valid := func(token string) bool {
				t.Helper()
				g := b.must("POST", PathOpenIMPresence, b.headers(token), `{}`)
				return strings.HasPrefix(g.body, `{"errCode":0`)
			}
			g := b.must("POST", PathParseToken, b.headers(""), `{"token":"`+b.login()+`"}`)
			var parsed struct {
				Data struct {
					UserID            string
					PlatformID        int
					ExpireTimeSeconds int64
				}
			}
			if err := json.Unmarshal([]byte(g.body), &parsed); err != nil {
				t.Fatal(err)
			}
			ends := b.clock.now().Add(90 * 24 * time.Hour).Unix()
			if d := parsed.Data; d.UserID != "imAdmin" || d.PlatformID != 10 || d.ExpireTimeSeconds != ends {
				t.Errorf("parse_token: %+v, want imAdmin, 10, %d", d, ends)
			}
			first := b.login()
			if again := b.login(); again != first {
				t.Errorf("two logins within a second got %s and %s", first, again)
			}
			b.KickTokens()
			if valid(first) || b.login() != first || !valid(first) {
				t.Error("a login must make the token of its second good again")
			}
			b.clock.advance(time.Second)
			second := b.login()
			b.clock.advance(5 * time.Minute)
			if !valid(first) || !valid(second) {
				t.Error("a token is refused within five minutes of the next")
			}
			b.clock.advance(time.Second)
			if valid(first) != (version != OpenIMMain) {
				t.Errorf("superseded token valid: %t", valid(first))
			}
			b.KickTokens()
			if valid(second) {
				t.Error("a kicked token is valid")
			}
			b.clock.advance(time.Second)
			if !valid(b.login()) {
				t.Error("kicking must end the old tokens and no new one")
			}
			last := b.login()
			b.clock.advance(90*24*time.Hour + time.Second)
			if valid(last) {
				t.Error("a token outlives its lifetime")
			}
		})
	}
}

// TestOpenIMAuthLag: of two auth instances one learns late of a login.
func TestOpenIMAuthLag(t *testing.T) {
	b := newOpenIMBench(t, OpenIMMain)
	mustFault(t, b, Fault{Kind: FaultAuthLag, Delay: 100 * time.Millisecond})
	b.clock.advance(time.Second)
	b.token = b.login()
	const unknown, known = `{"errCode":1507`, `{"errCode":0`
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{0, unknown}, {99 * time.Millisecond, unknown}, {time.Millisecond, known}} {
		b.clock.advance(step.after)
		if got := b.openIMCall(PathOpenIMPresence, `{"userIDs":["u1"]}`); !strings.HasPrefix(got, step.want) {
			t.Errorf("%s later: %s, want %s", step.after, got, step.want)
		}
	}
	if n := b.Stats().APIs[PathOpenIMPresence].Unauthorised; n != 2 {
		t.Errorf("%d calls are counted as refused for their token", n)
	}
}

// TestOpenIMAuthOld: of two auth instances one has the token in its cache, and accepts
// it after a forced logout, the loss of Redis and the grace of main.
func TestOpenIMAuthOld(t *testing.T) {
	for name, end := range map[string]func(b *bench){
		"kicked": func(b *bench) { b.KickTokens() },
		"lost":   func(b *bench) { b.ForgetTokens() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newOpenIMBench(t, OpenIMMain)
			id := mustFault(t, b, Fault{Kind: FaultAuthOld})
			accepted := func() bool {
				return strings.HasPrefix(b.openIMCall(PathOpenIMPresence, `{"userIDs":["u1"]}`), `{"errCode":0`)
			}
			b.clock.advance(time.Second)
			b.token = b.login() // and not used yet
			end(b)
			if accepted() {
				t.Error("a token that is in no cache is accepted")
			}
			b.clock.advance(time.Second)
			b.token = b.login()
			if !accepted() {
				t.Fatal("a new token is refused")
			}
			b.clock.advance(time.Second)
			end(b)
			b.clock.advance(authCacheFor - 2*time.Second)
			if !accepted() {
				t.Error("a token that is in the cache is refused")
			}
			b.ClearFault(id)
			if accepted() {
				t.Error("the instance without the token in its cache accepts it")
			}
			mustFault(t, b, Fault{Kind: FaultAuthOld})
			b.clock.advance(time.Second)
			if accepted() {
				t.Error("a token outlives the cache")
			}
		})
	}
}

func TestOpenIMRateLimit(t *testing.T) {
	b := newBench(t, func(c *Config) { c.OpenIM.PresenceRate = 1 })
	b.openIMCall(PathOpenIMPresence, `{}`)
	g := b.must("POST", PathOpenIMPresence, b.headers(b.token), `{}`)
	want := got{status: 429, body: `{"errCode":429,"errMsg":"too many requests, please try again later","errDlt":""}`}
	if diff := cmp.Diff(want, got{status: g.status, body: g.body}, cmp.AllowUnexported(got{})); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if after, kind := g.header.Get("Retry-After"), g.header.Get("Content-Type"); after != "1" || kind != "text/plain; charset=utf-8" {
		t.Errorf("Retry-After %q, Content-Type %q", after, kind)
	}
	b.clock.advance(time.Second)
	if g := b.openIMCall(PathOpenIMPresence, `{}`); !strings.HasPrefix(g, `{"errCode":0`) {
		t.Errorf("a second later: %s", g)
	}
}

func TestOpenIMGzip(t *testing.T) {
	b := newOpenIMBench(t, OpenIM383)
	zipped := b.openIMCall(PathOpenIMPresence, `{"userIDs":["u1"]}`) // the client asks for gzip by itself
	h := b.headers(b.token)
	h.Set("Accept-Encoding", "gzip")
	raw := b.must("POST", PathOpenIMPresence, h, `{"userIDs":["u1"]}`)
	if raw.header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(raw.body, "\x1f\x8b") {
		t.Errorf("Content-Encoding %q", raw.header.Get("Content-Encoding"))
	}
	h.Set("Accept-Encoding", "identity")
	plain := b.must("POST", PathOpenIMPresence, h, `{"userIDs":["u1"]}`)
	if plain.header.Get("Content-Encoding") != "" || plain.body != zipped {
		t.Errorf("plain %s\nzipped %s", plain.body, zipped)
	}
}
