package imsim

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStats(t *testing.T) {
	b := newBench(t, nil)
	setUsers(b)
	q := b.query()
	call := func(body string) {
		t.Helper()
		b.must("POST", PathQueryState+"?"+q.Encode(), nil, body)
	}
	call(`{"To_Account":["off","on","off"]}`)
	b.clock.advance(999 * time.Millisecond)
	call(`{"To_Account":["on"]}`) // the same random again
	b.clock.advance(time.Millisecond)
	q.Set("random", "77")
	q.Set("usersig", "?")
	call(`{"To_Account":["on"]}`)
	want := Stats{
		Connections: 1, // kept alive
		APIs: map[string]APIStats{PathQueryState: {
			Calls: 3, IDs: 5, MaxIDs: 3, DuplicateCalls: 1, RepeatedNonces: 1, Unauthorised: 1, Failed: 1, MaxPerSecond: 2,
		}},
	}
	if diff := cmp.Diff(want, b.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.APIs[PathQueryState], b.Stats().Total()); diff != "" {
		t.Errorf("total (-want +got):\n%s", diff)
	}
	b.Reset()
	if diff := cmp.Diff(Stats{APIs: map[string]APIStats{}}, b.Stats()); diff != "" {
		t.Errorf("stats after a reset (-want +got):\n%s", diff)
	}
}

func TestNoncesAreForgotten(t *testing.T) {
	a := &apiCounters{nonces: make(map[string]struct{})}
	for i := range 3 * maxNonces {
		if a.seen(fmt.Sprint(i)) {
			t.Fatalf("nonce %d counts as repeated", i)
		}
	}
	if !a.seen(fmt.Sprint(3*maxNonces - 1)) {
		t.Error("a fresh repetition is not noticed")
	}
	if n := len(a.nonces) + len(a.olderNonce); n > 2*maxNonces+1 {
		t.Errorf("%d nonces are held", n)
	}
}

func TestServed(t *testing.T) {
	b := newBench(t, nil)
	start := b.clock.now()
	tick := func() { b.clock.advance(time.Second) }
	poll := func() {
		t.Helper()
		b.tencentCall(PathQueryOnlineStatus, `{"To_Account":["u1","u2"],"IsNeedDetail":1}`)
		b.tencentCall(PathTencentAccounts, `{"CheckItem":[{"UserID":"u1"}]}`)
		b.openIMCall(PathOpenIMPresence, `{"userIDs":["u1"]}`)
		b.openIMCall(PathOpenIMAccounts, `{"checkUserIDs":["u1"]}`)
	}
	b.Users().Set("u2")
	poll()
	tick()
	b.Users().Set("u1", Device{IOS, Background}, Device{Web, Online}, Device{Web, Online}, Device{Android, Push})
	poll()
	tick()
	poll()
	tick()
	b.Users().Set("u1", Device{IOS, Push})
	poll()
	mustFault(t, b, Fault{Kind: FaultTruncate, Path: PathQueryOnlineStatus})
	b.Users().Set("u1")
	if _, err := b.do("POST", PathQueryOnlineStatus+"?"+b.query().Encode(), nil, `{"To_Account":["u1"]}`); err == nil {
		t.Error("a truncated answer arrived whole")
	}
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	value := func(state, platforms string, from, to, times int) Value {
		return Value{State: state, Platforms: platforms, FirstAsked: at(from), FirstServed: at(from), LastServed: at(to), Times: times}
	}
	want := map[Kind][]Value{
		TencentPresence: {
			value("online", `{"ios":"online","android":"push_online","web":"online"}`, 1, 2, 2),
			value("push_online", `{"ios":"push_online"}`, 3, 3, 1),
		},
		TencentAccounts: {value("not_imported", "", 0, 0, 1), value("imported", "", 1, 3, 3)},
		OpenIMPresence: {
			value("offline", "{}", 0, 0, 1),
			value("online", `{"ios":"background","web":"online"}`, 1, 2, 2),
			value("offline", "{}", 3, 3, 1),
		},
		OpenIMAccounts: {value("not_imported", "", 0, 0, 1), value("imported", "", 1, 3, 3)},
	}
	for kind, values := range want {
		if diff := cmp.Diff(values, b.Served(kind, "u1")); diff != "" {
			t.Errorf("kind %d (-want +got):\n%s", kind, diff)
		}
	}
	if got := b.Served(TencentPresence, "u1")[0].String(); got != `online {"ios":"online","android":"push_online","web":"online"}` {
		t.Errorf("String: %s", got)
	}
	b.Reset()
	if got := b.Served(TencentPresence, "u1"); len(got) != 0 {
		t.Errorf("after a reset: %v", got)
	}
}

func TestControl(t *testing.T) {
	rounds := NewRounds(1, 1)
	b := newBench(t, func(c *Config) { c.Population = rounds })
	control := func(method, path, body string, status int) string {
		t.Helper()
		g := b.must(method, "/_sim/"+path, nil, body)
		if g.status != status {
			t.Errorf("%s %s %s: HTTP %d %s", method, path, body, g.status, g.body)
		}
		return strings.TrimSpace(g.body)
	}
	control("POST", "users", `{"user_id":"u1","devices":[{"platform":"web","mode":"online"}]}`, 200)
	const asked = `{"To_Account":["u1"]}`
	if got := b.tencentCall(PathQueryState, asked); !strings.Contains(got, `"Online"`) {
		t.Errorf("u1 set online: %s", got)
	}
	control("POST", "users", `{"user_id":"u1","imported":false}`, 200)
	wantCode(t, b.tencentCall(PathQueryState, asked), 70107)
	control("POST", "users", `{"user_id":"u1","unset":true}`, 200)
	if _, set := b.Users().find("u1"); set {
		t.Error("u1 is still set")
	}
	if got := control("POST", "faults", `{"path":"/v4/openim/querystate","times":3,"kind":"code","code":91000}`, 200); got != `{"id":1}` {
		t.Errorf("fault answered by %s", got)
	}
	wantCode(t, b.tencentCall(PathQueryState, asked), 91000)
	if got := control("GET", "faults", "", 200); got != `[{"kind":"code","path":"/v4/openim/querystate","times":3,"code":91000,"id":1,"hits":1}]` {
		t.Errorf("faults %s", got)
	}
	control("DELETE", "faults/1", "", 200)
	control("DELETE", "faults/1", "", 400)
	control("POST", "faults", `{"kind":"delay","delay":"1ms"}`, 200)
	control("POST", "faults", `{"kind":"gateway_stopped","share":0.3,"for":"20m"}`, 200)
	if got := b.Faults(); got[0].Delay != time.Millisecond || got[1].Share != 0.3 || got[1].For != 20*time.Minute {
		t.Errorf("faults %+v", got)
	}
	control("DELETE", "faults", "", 200)
	control("POST", "round", `{"round":3}`, 200)
	if rounds.Round() != 3 {
		t.Errorf("round %d", rounds.Round())
	}
	b.openIMCall(PathOpenIMAccounts, `{"checkUserIDs":["u1"]}`)
	if got := control("GET", "served?kind=openim_accounts&user_id=u1", "", 200); !strings.HasPrefix(got, `[{"state":"`) {
		t.Errorf("served %s", got)
	}
	control("POST", "revoke", "", 200)
	wantCode(t, b.tencentCall(PathQueryState, asked), 70052)
	if got := b.openIMCall(PathOpenIMPresence, `{}`); !strings.HasPrefix(got, `{"errCode":1506`) {
		t.Errorf("after revoking: %s", got)
	}
	if got := control("GET", "stats", "", 200); !strings.Contains(got, `"/v4/openim/querystate":{"calls":4,`) {
		t.Errorf("stats %s", got)
	}
	for _, body := range []string{`{"what":"signatures"}`, `{"what":"tokens"}`, `{"what":"forget"}`} {
		control("POST", "revoke", body, 200)
	}
	control("POST", "reset", "", 200)
	if n := len(b.Stats().APIs); n != 0 {
		t.Errorf("%d APIs have figures after a reset", n)
	}
	for path, body := range map[string]string{
		"faults": `{"kind":"fire"}`, "faults?1": `{"sort":"fire"}`, "faults?2": `{"kind":"delay","delay":"soon"}`, "faults?3": `{"kind":"redis_empty","share":1,"for":"long"}`,
		"round": `{}`, "revoke": `{"what":"all"}`, "users": `{}`, "users?1": `{"user_id":"u","devices":[{"platform":"phone","mode":"online"}]}`,
		"users?2": `{"user_id":"u","devices":[{"platform":"ios"}]}`, "users?3": `{"user_id":"u","devices":[{"platform":"ios","mode":"on"}]}`,
	} {
		control("POST", path, body, 400)
	}
	control("GET", "served?kind=presence", "", 400)
	control("GET", "elsewhere", "", 404)
}

func TestServe(t *testing.T) {
	s := New(Config{Tencent: &Tencent{SDKAppID: testApp, Admins: []string{testAdmin}, SecretKey: testKey}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + l.Addr().String() + "/_sim/stats")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := s.Stats().Connections; got != 1 {
		t.Errorf("%d connections counted, want 1", got)
	}
	if _, err := s.AddFault(Fault{Kind: FaultHang}); err != nil {
		t.Fatal(err)
	}
	hung := make(chan error, 1)
	go func() {
		_, err := client.Post("http://"+l.Addr().String()+PathQueryState, "application/json", strings.NewReader(`{}`))
		hung <- err
	}()
	waitFor(t, "the call to hang", func() bool { return s.Faults()[0].Hits == 1 })
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := <-hung; err == nil {
		t.Error("the hanging call got an answer")
	}
	if err := s.Serve(t.Context(), l); err == nil {
		t.Error("Serve on a closed listener: no error")
	}
}

func TestConfigValidate(t *testing.T) {
	tencent := func() *Tencent { return &Tencent{SDKAppID: 1, Admins: []string{"a"}, SecretKey: "k"} }
	openIM := func() *OpenIM { return &OpenIM{AdminUserID: "a", Secret: "s"} }
	for want, c := range map[string]Config{
		"neither":      {},
		"secret key":   {Tencent: &Tencent{SDKAppID: 1, Admins: []string{"a"}}},
		"admin user":   {OpenIM: &OpenIM{Secret: "s"}},
		"allowed":      {OpenIM: &OpenIM{AdminUserID: "a", Secret: "s", Version: "2.0"}},
		"is negative":  {Tencent: tencent(), Speed: -1},
		"needs an SDK": {Tencent: &Tencent{}, OpenIM: openIM()},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want in it %q", c, err, want)
		}
	}
	if err := (Config{Tencent: tencent(), OpenIM: openIM()}).Validate(); err != nil {
		t.Error(err)
	}
}

// TestConcurrency has callers, faults, rounds and readers at once, for the race
// detector, and loses no call.
func TestConcurrency(t *testing.T) {
	rounds := NewRounds(1, 0.5)
	b := newBench(t, func(c *Config) { c.Population = rounds })
	token := b.login()
	const callers, calls = 4, 25
	var wg sync.WaitGroup
	post := func(path string, header http.Header, body string) {
		g, err := b.do("POST", path, header, body)
		if err == nil && g.status != 200 {
			t.Errorf("HTTP %d: %s", g.status, g.body)
		}
	}
	sig := sign(testKey, testApp, testAdmin, b.clock.now().Unix(), 60)
	for i := range callers {
		wg.Go(func() {
			for n := range calls {
				id := fmt.Sprintf("%d-%d", i, n)
				q := url.Values{"sdkappid": {fmt.Sprint(testApp)}, "identifier": {testAdmin}, "usersig": {sig}, "random": {fmt.Sprint(i*1000 + n)}, "contenttype": {"json"}}
				post(PathQueryOnlineStatus+"?"+q.Encode(), nil, `{"To_Account":[`+ids(50, `"u%d"`)+`],"IsNeedDetail":1}`)
				post(PathOpenIMPresence, http.Header{"Operationid": {id}, "Token": {token}}, `{"userIDs":[`+ids(50, `"u%d"`)+`]}`)
			}
		})
	}
	wg.Go(func() {
		for n := range calls {
			rounds.SetRound(n)
			b.Users().Set(fmt.Sprintf("u%d", n), Device{Web, Online})
			if _, err := b.AddFault(Fault{Kind: FaultDrop, Times: 1}); err != nil {
				t.Error(err)
			}
			b.Served(TencentPresence, "u1")
			b.Stats()
			b.ForgetTokens()
			b.IssueToken("u1", time.Hour)
			b.ClearFaults()
		}
	})
	wg.Wait()
	want := APIStats{Calls: callers * calls, IDs: callers * calls * 50, MaxIDs: 50, MaxPerSecond: callers * calls}
	if diff := cmp.Diff(want, b.Stats().APIs[PathQueryOnlineStatus]); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}
