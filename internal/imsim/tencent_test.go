package imsim

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func setUsers(b *bench) {
	b.Users().Set("off")
	b.Users().Set("on", Device{IOS, Push}, Device{Web, Online})
	b.Users().Set("push", Device{Android, Push})
	b.Users().Set("away", Device{IPad, Background}, Device{Windows, Online}, Device{MacOS, Online})
}

func TestTencentPresence(t *testing.T) {
	tests := []struct{ name, path, body, want string }{
		{"older name", PathQueryState, `{"To_Account":["off","on","push"]}`,
			`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[{"To_Account":"off","State":"Offline"},{"To_Account":"on","State":"Online"},{"To_Account":"push","State":"PushOnline"}]}`},
		{"older name with detail", PathQueryState, `{"IsNeedDetail":1,"To_Account":["on","off"]}`,
			`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[{"To_Account":"on","State":"Online","Detail":[{"Platform":"IPhone","Status":"PushOnline"},{"Platform":"Web","Status":"Online"}]},{"To_Account":"off","State":"Offline"}]}`},
		{"newer name", PathQueryOnlineStatus, `{"To_Account":["push"],"IsNeedDetail":0}`,
			`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[{"To_Account":"push","State":"PushOnline","Status":"PushOnline"}]}`},
		{"newer name with detail", PathQueryOnlineStatus, `{"To_Account":["on","away"],"IsNeedDetail":1,"IsReturnInstid":1,"IsReturnCustomStatus":1}`,
			`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[{"To_Account":"on","State":"Online","Status":"Online","Detail":[{"Platform":"iPhone","Status":"PushOnline"},{"Platform":"Web","Status":"Online"}]},` +
				`{"To_Account":"away","State":"Online","Status":"Online","Detail":[{"Platform":"iPad","Status":"Online"},{"Platform":"PC","Status":"Online"},{"Platform":"Mac","Status":"Online"}]}]}`},
		{"some not imported", PathQueryOnlineStatus, `{"To_Account":["ghost","off"]}`,
			`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[{"To_Account":"off","State":"Offline","Status":"Offline"}],"ErrorList":[{"To_Account":"ghost","ErrorCode":70107}]}`},
		{"none imported", PathQueryState, `{"To_Account":["ghost","g\"2"]}`,
			`{"ActionStatus":"FAIL","ErrorInfo":"all accounts failed","ErrorCode":70107,"ErrorList":[{"To_Account":"ghost","ErrorCode":70107},{"To_Account":"g\"2","ErrorCode":70107}]}`},
		{"repeated", PathQueryState, `{"To_Account":["off","off"]}`,
			`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[{"To_Account":"off","State":"Offline"},{"To_Account":"off","State":"Offline"}]}`},
	}
	b := newBench(t, nil)
	setUsers(b)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, b.tencentCall(tt.path, tt.body)); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTencentAccounts(t *testing.T) {
	b := newBench(t, nil)
	setUsers(b)
	want := `{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","ResultItem":[{"UserID":"off","ResultCode":0,"ResultInfo":"","AccountStatus":"Imported"},` +
		`{"UserID":"ghost","ResultCode":0,"ResultInfo":"","AccountStatus":"NotImported"},{"UserID":"administrator","ResultCode":0,"ResultInfo":"","AccountStatus":"Imported"}]}`
	got := b.tencentCall(PathTencentAccounts, `{"CheckItem":[{"UserID":"off"},{"UserID":"ghost"},{"UserID":"administrator"}]}`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

// ids lists n distinct ids in the form of one element each.
func ids(n int, format string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(list, ",")
}

func TestTencentBody(t *testing.T) {
	const presence, accounts = PathQueryOnlineStatus, PathTencentAccounts
	tests := []struct {
		name, path, body string
		code             int
	}{
		{"no body", presence, ``, 60003},
		{"not JSON", presence, `{"To_Account":["off",]}`, 90001},
		{"not an object", presence, `["off"]`, 90001},
		{"empty array", presence, `{"To_Account":[]}`, 90001},
		{"missing", presence, `{}`, 90003},
		{"null", presence, `{"To_Account":null}`, 90003},
		{"wrong case", presence, `{"to_account":["off"]}`, 90003},
		{"a string", presence, `{"To_Account":"off"}`, 90003},
		{"numbers", presence, `{"To_Account":["off",1]}`, 90003},
		{"empty id", presence, `{"To_Account":["off",""]}`, 90003},
		{"id of 33 bytes", presence, `{"To_Account":["` + strings.Repeat("x", 33) + `"]}`, 90003},
		{"not ASCII", presence, `{"To_Account":["ö"]}`, 90003},
		{"IsNeedDetail a string", presence, `{"To_Account":["off"],"IsNeedDetail":"1"}`, 90001},
		{"500 ids", presence, `{"To_Account":["off",` + ids(499, `"u%d"`) + `]}`, 0},
		{"501 ids", presence, `{"To_Account":["off",` + ids(500, `"u%d"`) + `]}`, 90011},
		{"id of 32 bytes", presence, `{"To_Account":["off","` + strings.Repeat("x", 32) + `"]}`, 0},
		{"no body", accounts, ``, 60003},
		{"not JSON", accounts, `{`, 60003},
		{"empty array", accounts, `{"CheckItem":[]}`, 70402},
		{"missing", accounts, `{"To_Account":["off"]}`, 70402},
		{"plain strings", accounts, `{"CheckItem":["off"]}`, 70402},
		{"wrong case", accounts, `{"CheckItem":[{"userID":"off"}]}`, 70402},
		{"number", accounts, `{"CheckItem":[{"UserID":"off"},{"UserID":1}]}`, 70402},
		{"100 ids", accounts, `{"CheckItem":[` + ids(100, `{"UserID":"u%d"}`) + `]}`, 0},
		{"101 ids", accounts, `{"CheckItem":[` + ids(101, `{"UserID":"u%d"}`) + `]}`, 70402},
		{"unknown path", "/v4/openim/query", `{}`, 60009},
	}
	b := newBench(t, nil)
	setUsers(b)
	for _, tt := range tests {
		t.Run(tt.path+" "+tt.name, func(t *testing.T) {
			wantCode(t, b.tencentCall(tt.path, tt.body), tt.code)
		})
	}
	stats := b.Stats()
	if got := stats.APIs[presence].MaxIDs; got != 501 {
		t.Errorf("MaxIDs %d, want the refused call's 501", got)
	}
	if stats.NotFound != 1 {
		t.Errorf("NotFound %d, want 1", stats.NotFound)
	}
}

// wantCode checks the outcome of a Tencent answer.
func wantCode(t *testing.T, body string, code int) {
	t.Helper()
	status := "FAIL"
	if code == 0 {
		status = "OK"
	}
	if !strings.Contains(body, fmt.Sprintf(`"ErrorCode":%d`, code)) || !strings.HasPrefix(body, `{"ActionStatus":"`+status+`"`) {
		t.Errorf("want %s with code %d, got %s", status, code, body)
	}
}

func TestTencentQuery(t *testing.T) {
	now := newClock().now().Unix()
	set := func(name, value string) func(url.Values) { return func(q url.Values) { q.Set(name, value) } }
	tests := []struct {
		name   string
		change func(url.Values)
		code   int
	}{
		{"valid", func(url.Values) {}, 0},
		{"largest random", set("random", "4294967295"), 0},
		{"no sdkappid", set("sdkappid", ""), 60012},
		{"sdkappid no number", set("sdkappid", "x"), 60006},
		{"other sdkappid", set("sdkappid", "1400000001"), 70020},
		{"no contenttype", set("contenttype", ""), 60025},
		{"no random", set("random", ""), 60002},
		{"random too large", set("random", "4294967296"), 60002},
		{"random below zero", set("random", "-1"), 60002},
		{"no identifier", set("identifier", ""), 60010},
		{"no usersig", set("usersig", ""), 70002},
		{"usersig is no base64", set("usersig", "!"), 70003},
		{"usersig cut off", func(q url.Values) { q.Set("usersig", q.Get("usersig")[:40]) }, 70003},
		{"other key", set("usersig", sign("other", testApp, testAdmin, now, 60)), 70009},
		{"other identifier signed", set("usersig", sign(testKey, testApp, "u1", now, 60)), 70013},
		{"other sdkappid signed", set("usersig", sign(testKey, 1, testAdmin, now, 60)), 70014},
		{"last second", set("usersig", sign(testKey, testApp, testAdmin, now-60, 60)), 0},
		{"expired", set("usersig", sign(testKey, testApp, testAdmin, now-61, 60)), 70001},
		{"not admin", func(q url.Values) {
			q.Set("identifier", "u1")
			q.Set("usersig", sign(testKey, testApp, "u1", now, 60))
		}, 90009},
	}
	b := newBench(t, nil)
	setUsers(b)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := b.query()
			tt.change(q)
			g := b.must("POST", PathQueryState+"?"+q.Encode(), nil, `{"To_Account":["off"]}`)
			wantCode(t, g.body, tt.code)
		})
	}
	q := b.query()
	wantCode(t, b.must("GET", PathQueryState+"?"+q.Encode(), nil, "").body, 60002)
	q.Set("identifier", "u1")
	q.Set("usersig", sign(testKey, testApp, "u1", now, 60))
	wantCode(t, b.must("POST", PathTencentAccounts+"?"+q.Encode(), nil, `{"CheckItem":[{"UserID":"off"}]}`).body, 70403)
	if got := b.Stats().APIs[PathQueryState].Unauthorised; got != 7 {
		t.Errorf("Unauthorised %d, want 7", got)
	}
}

func TestRevokeSignatures(t *testing.T) {
	b := newBench(t, nil)
	setUsers(b)
	const body = `{"To_Account":["off"]}`
	wantCode(t, b.tencentCall(PathQueryState, body), 0)
	b.RevokeSignatures()
	wantCode(t, b.tencentCall(PathQueryState, body), 70052)
	b.clock.advance(time.Second)
	wantCode(t, b.tencentCall(PathQueryState, body), 0)
}

func TestTencentLimit(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Tencent.AccountsRate = 3 })
	const body = `{"CheckItem":[{"UserID":"u1"}]}`
	call := func(after time.Duration, code int) {
		t.Helper()
		b.clock.advance(after)
		wantCode(t, b.tencentCall(PathTencentAccounts, body), code)
	}
	call(0, 0)
	call(600*time.Millisecond, 0)
	call(0, 0)
	call(399*time.Millisecond, 60007) // the first three are within one second
	call(time.Millisecond, 0)         // the first is a second old
	call(599*time.Millisecond, 60007) // a fixed window would have begun anew
	call(time.Millisecond, 0)
	want := APIStats{Calls: 7, IDs: 7, MaxIDs: 1, RateLimited: 2, Failed: 2, MaxPerSecond: 5}
	if diff := cmp.Diff(want, b.Stats().APIs[PathTencentAccounts]); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestDocumentedLimits(t *testing.T) {
	b := newBench(t, nil)
	for path, want := range map[string]int{PathQueryState: 200, PathQueryOnlineStatus: 200, PathTencentAccounts: 100} {
		passed := 0
		for range 300 {
			if b.apis[path].limit.allow(b.clock.now) {
				passed++
			}
		}
		if passed != want {
			t.Errorf("%s: %d calls passed in one second, want %d", path, passed, want)
		}
	}
	if g := b.must("GET", "/elsewhere", nil, ""); g.status != http.StatusNotFound {
		t.Errorf("HTTP status %d, want 404", g.status)
	}
}
