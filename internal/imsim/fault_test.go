package imsim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustFault(t *testing.T, b *bench, f Fault) int {
	t.Helper()
	id, err := b.AddFault(f)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// ask makes one valid presence call and returns whatever came of it.
func ask(b *bench) (got, error) {
	return b.do("POST", PathQueryState+"?"+b.query().Encode(), nil, `{"To_Account":["off","on"]}`)
}

const rightAnswer = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[{"To_Account":"off","State":"Offline"},{"To_Account":"on","State":"Online"}]}`

func TestFaultsOfTheNetwork(t *testing.T) {
	refused := func(t *testing.T, want error, err error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
	tests := []struct {
		fault Fault
		check func(t *testing.T, g got, err error)
	}{
		{Fault{Kind: FaultStatus, Status: 503, Body: "busy", RetryAfter: 7}, func(t *testing.T, g got, err error) {
			if err != nil || g.status != 503 || g.body != "busy" || g.header.Get("Retry-After") != "7" {
				t.Errorf("%v: HTTP %d %q, Retry-After %q", err, g.status, g.body, g.header.Get("Retry-After"))
			}
		}},
		{Fault{Kind: FaultHTML, Status: 502}, func(t *testing.T, g got, err error) {
			if err != nil || g.status != 502 || !strings.HasPrefix(g.body, "<html>") || g.header.Get("Content-Type") != "text/html" {
				t.Errorf("%v: HTTP %d %q", err, g.status, g.body)
			}
		}},
		{Fault{Kind: FaultEmpty}, func(t *testing.T, g got, err error) {
			if err != nil || g.status != 200 || g.body != "" {
				t.Errorf("%v: HTTP %d %q", err, g.status, g.body)
			}
		}},
		{Fault{Kind: FaultBomb, Size: 1 << 20}, func(t *testing.T, g got, err error) {
			if err != nil || len(g.body) < 1<<20 || !strings.Contains(g.body, `"QueryResult":[{},{},`) {
				t.Errorf("%v: %d bytes", err, len(g.body))
			}
		}},
		{Fault{Kind: FaultHuge, Size: 1 << 20}, func(t *testing.T, g got, err error) {
			if err != nil || len(g.body) < 1<<20 {
				t.Errorf("%v: %d bytes", err, len(g.body))
			}
		}},
		{Fault{Kind: FaultRedirect, Body: "http://elsewhere.invalid/"}, func(t *testing.T, g got, err error) {
			if err != nil || g.status != 302 || g.header.Get("Location") != "http://elsewhere.invalid/" {
				t.Errorf("%v: HTTP %d to %q", err, g.status, g.header.Get("Location"))
			}
		}},
		{Fault{Kind: FaultReset}, func(t *testing.T, _ got, err error) { refused(t, syscall.ECONNRESET, err) }},
		{Fault{Kind: FaultClose}, func(t *testing.T, _ got, err error) { refused(t, io.EOF, err) }},
		{Fault{Kind: FaultTruncate}, func(t *testing.T, g got, err error) {
			refused(t, io.ErrUnexpectedEOF, err)
			if g.status != 200 || g.body != rightAnswer[:len(rightAnswer)/2] {
				t.Errorf("HTTP %d %q", g.status, g.body)
			}
		}},
		{Fault{Kind: FaultDrip, Delay: time.Microsecond}, func(t *testing.T, g got, err error) {
			if err != nil || g.body != rightAnswer {
				t.Errorf("%v: HTTP %d %q", err, g.status, g.body)
			}
		}},
		{Fault{Kind: FaultHTML, Echo: true}, func(t *testing.T, g got, err error) {
			if err != nil || !strings.Contains(g.body, "usersig=") || !strings.Contains(g.body, `{"To_Account":["off","on"]}`) {
				t.Errorf("%v: %q does not repeat the call", err, g.body)
			}
		}},
		{Fault{Kind: FaultContentType}, func(t *testing.T, g got, err error) {
			if err != nil || g.body != rightAnswer || g.header.Get("Content-Type") != "text/html" {
				t.Errorf("%v: %q of type %q", err, g.body, g.header.Get("Content-Type"))
			}
		}},
	}
	b := newBench(t, nil)
	setUsers(b)
	for _, tt := range tests {
		t.Run(string(tt.fault.Kind), func(t *testing.T) {
			tt.fault.Times = 1
			mustFault(t, b, tt.fault)
			g, err := ask(b)
			tt.check(t, g, err)
			if g, err := ask(b); err != nil || g.body != rightAnswer {
				t.Errorf("the call after: %v %s", err, g.body)
			}
		})
	}
}

func TestFaultsOfTheAnswer(t *testing.T) {
	const (
		head  = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[`
		off   = `{"To_Account":"off","State":"Offline"}`
		on    = `{"To_Account":"on","State":"Online"}`
		ghost = `{"To_Account":"push","State":"PushOnline"}`
	)
	tests := []struct {
		fault Fault
		want  string
	}{
		{Fault{Kind: FaultDrop}, head + on + `]}`},
		{Fault{Kind: FaultDrop, IDs: []string{"on"}}, head + off + `]}`},
		{Fault{Kind: FaultDrop, IDs: []string{"someone else"}}, rightAnswer},
		{Fault{Kind: FaultRepeat}, head + off + "," + on + "," + off + `]}`},
		{Fault{Kind: FaultRepeat, IDs: []string{"on"}}, head + off + "," + on + "," + on + `]}`},
		{Fault{Kind: FaultUnasked, IDs: []string{"push"}}, head + off + "," + on + "," + ghost + `]}`},
		{Fault{Kind: FaultOffline}, head + off + `,{"To_Account":"on","State":"Offline"}]}`},
		{Fault{Kind: FaultWrongTypes}, `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":"0","QueryResult":{"To_Account":1,"Status":true,"Detail":"none"}}`},
		{Fault{Kind: FaultCode, Code: 91000}, `{"ActionStatus":"FAIL","ErrorInfo":"simulated error 91000","ErrorCode":91000}`},
		{Fault{Kind: FaultCode, Code: 60028, Text: `used "up"`}, `{"ActionStatus":"FAIL","ErrorInfo":"used \"up\"","ErrorCode":60028}`},
		{Fault{Kind: FaultNotAdmin}, `{"ActionStatus":"FAIL","ErrorInfo":"app admin permissions are required","ErrorCode":90009}`},
		{Fault{Kind: FaultPoison, IDs: []string{"on"}}, `{"ActionStatus":"FAIL","ErrorInfo":"simulated error 90003","ErrorCode":90003}`},
		{Fault{Kind: FaultPoison, IDs: []string{"someone else"}}, rightAnswer},
		{Fault{Kind: FaultUserCode, IDs: []string{"on"}}, head + off + `],"ErrorList":[{"To_Account":"on","ErrorCode":70107}]}`},
		{Fault{Kind: FaultUserCode, IDs: []string{"on", "off"}, Code: 70169}, `{"ActionStatus":"FAIL","ErrorInfo":"all accounts failed","ErrorCode":70169,"ErrorList":[{"To_Account":"off","ErrorCode":70169},{"To_Account":"on","ErrorCode":70169}]}`},
	}
	b := newBench(t, nil)
	setUsers(b)
	for _, tt := range tests {
		t.Run(string(tt.fault.Kind)+" "+strings.Join(tt.fault.IDs, ","), func(t *testing.T) {
			defer b.ClearFaults()
			mustFault(t, b, tt.fault)
			g, err := ask(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, g.body); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFaultsOfEachAPI has the faults that differ from one API to another.
func TestFaultsOfEachAPI(t *testing.T) {
	tests := []struct {
		path, body string
		fault      Fault
		want       string
	}{
		{PathTencentAccounts, `{"CheckItem":[{"UserID":"off"}]}`, Fault{Kind: FaultPoison, IDs: []string{"off"}}, `"ErrorCode":70402`},
		{PathTencentAccounts, `{"CheckItem":[{"UserID":"off"}]}`, Fault{Kind: FaultNotAdmin}, `"ErrorCode":70403`},
		{PathTencentAccounts, `{"CheckItem":[{"UserID":"off"}]}`, Fault{Kind: FaultWrongTypes}, `"ResultItem":{`},
		{PathTencentAccounts, `{"CheckItem":[{"UserID":"off"}]}`, Fault{Kind: FaultUserCode, IDs: []string{"off"}, Code: 70500}, `"ResultItem":[{"UserID":"off","ResultCode":70500,"ResultInfo":"simulated error"}]`},
		{PathOpenIMPresence, `{"userIDs":["on"]}`, Fault{Kind: FaultPoison, IDs: []string{"on"}}, `{"errCode":1001,`},
		{PathOpenIMPresence, `{"userIDs":["on"]}`, Fault{Kind: FaultNotAdmin}, `{"errCode":1002,"errMsg":"NoPermissionError","errDlt":"only app manager"}`},
		{PathOpenIMPresence, `{"userIDs":["on"]}`, Fault{Kind: FaultOffline}, `"data":[{"userID":"on","status":0,"detailPlatformStatus":null}]`},
		{PathOpenIMPresence, `{"userIDs":["on"]}`, Fault{Kind: FaultCode, Code: 14}, `{"errCode":14,`},
		{PathOpenIMPresence, `{"userIDs":["on"]}`, Fault{Kind: FaultWrongTypes}, `{"errCode":"0"`},
		{PathOpenIMAccounts, `{"checkUserIDs":["on"]}`, Fault{Kind: FaultUnasked, IDs: []string{"ghost"}}, `{"userID":"ghost","accountStatus":0}`},
	}
	b := newBench(t, nil)
	setUsers(b)
	for _, tt := range tests {
		t.Run(tt.path+" "+string(tt.fault.Kind), func(t *testing.T) {
			defer b.ClearFaults()
			tt.fault.Path = tt.path
			mustFault(t, b, tt.fault)
			call := b.openIMCall
			if strings.HasPrefix(tt.path, "/v4/") {
				call = b.tencentCall
			}
			if got := call(tt.path, tt.body); !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want in it %s", got, tt.want)
			}
		})
	}
}

func TestFaultFlip(t *testing.T) {
	b := newOpenIMBench(t, OpenIM383)
	b.Users().Set("u4", Device{IPad, Push}, Device{Web, Online})
	mustFault(t, b, Fault{Kind: FaultFlip})
	seen := make(map[string]bool)
	for range 40 {
		got := b.openIMCall(PathOpenIMPresence, `{"userIDs":["u1","u4"]}`)
		if !strings.Contains(got, `{"userID":"u4","status":1,"detailPlatformStatus":[{"platformID":5,`) {
			t.Fatalf("a user with one connection flips: %s", got)
		}
		seen[madeUp.ReplaceAllString(got, "")] = true
	}
	if len(seen) != 2 {
		t.Errorf("%d different answers, want one of each gateway", len(seen))
	}
}

// TestFaultUsersStatus: get_users_status has all devices whatever the gateways
// answer; a collapse reaches it only when the fault's path does.
func TestFaultUsersStatus(t *testing.T) {
	const (
		asked   = `{"userID":"imAdmin","userIDs":["u1"]}`
		online  = `{"errCode":0,"errMsg":"","errDlt":"","data":{"statusList":[{"userID":"u1","status":1,"platformIDs":[1,5]}]}}`
		offline = `{"errCode":0,"errMsg":"","errDlt":"","data":{"statusList":[{"userID":"u1","status":0,"platformIDs":null}]}}`
	)
	b := newOpenIMBench(t, OpenIM383)
	for _, tt := range []struct {
		fault Fault
		want  string
	}{
		{Fault{Kind: FaultFlip}, online},
		{Fault{Kind: FaultOffline, Path: PathOpenIMPresence}, online},
		{Fault{Kind: FaultOffline}, offline},
		{Fault{Kind: FaultOffline, Path: PathOpenIMUsersStatus}, offline},
	} {
		mustFault(t, b, tt.fault)
		if got := b.openIMCall(PathOpenIMUsersStatus, asked); got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.fault, got, tt.want)
		}
		b.ClearFaults()
	}
}

// TestFaultGateways: the two APIs of OpenIM contradict each other as they do on a
// server whose gateways or whose Redis fail.
func TestFaultGateways(t *testing.T) {
	b := newOpenIMBench(t, OpenIM383)
	asked := make([]string, 200)
	for i := range asked {
		asked[i] = fmt.Sprint("g", i)
		b.Users().Set(asked[i], Device{IOS, Online})
	}
	ids, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	online := func(path string) int {
		return strings.Count(b.openIMCall(path, `{"userID":"imAdmin","userIDs":`+string(ids)+`}`), `"status":1`)
	}
	type seen struct{ gateways, redis int }
	const minute = time.Minute
	for _, tt := range []struct {
		fault  Fault
		after  time.Duration
		want   seen
		within int // of what the share comes to
	}{
		{Fault{Kind: FaultGatewayLost, IDs: asked[:30]}, 60 * minute, seen{170, 200}, 0},
		{Fault{Kind: FaultGatewayLost, Share: 0.5}, 0, seen{100, 200}, 30},
		{Fault{Kind: FaultGatewayLost, Share: 1}, 0, seen{0, 200}, 0},
		{Fault{Kind: FaultGatewayStopped, IDs: asked[:30]}, 29 * minute, seen{170, 200}, 0},
		{Fault{Kind: FaultGatewayStopped, IDs: asked[:30]}, 30 * minute, seen{170, 170}, 0},
		{Fault{Kind: FaultGatewayStopped, IDs: asked[:30], For: 2 * minute}, 2 * minute, seen{170, 170}, 0},
		{Fault{Kind: FaultRedisEmpty, Share: 1}, 9 * minute, seen{200, 0}, 0},
		{Fault{Kind: FaultRedisEmpty, Share: 1}, 15 * minute, seen{200, 100}, 30},
		{Fault{Kind: FaultRedisEmpty, Share: 1}, 20 * minute, seen{200, 200}, 0},
		{Fault{Kind: FaultRedisEmpty, IDs: asked[:30], For: 4 * minute}, 1 * minute, seen{200, 170}, 0},
	} {
		mustFault(t, b, tt.fault)
		b.clock.advance(tt.after)
		got := seen{online(PathOpenIMPresence), online(PathOpenIMUsersStatus)}
		if d := got.gateways - tt.want.gateways; d < -tt.within || d > tt.within {
			t.Errorf("%+v: get_users_online_status has %d online, want %d", tt.fault, got.gateways, tt.want.gateways)
		}
		if d := got.redis - tt.want.redis; d < -tt.within || d > tt.within {
			t.Errorf("%+v: get_users_status has %d online, want %d", tt.fault, got.redis, tt.want.redis)
		}
		b.ClearFaults()
	}
}

func TestFaultMatching(t *testing.T) {
	b := newBench(t, nil)
	setUsers(b)
	outcome := func() string {
		g, err := ask(b)
		switch {
		case err != nil:
			t.Fatal(err)
		case strings.Contains(g.body, `"ErrorCode":0`):
			return "."
		}
		return "x"
	}
	run := func(f Fault, calls int) string {
		t.Helper()
		defer b.ClearFaults()
		f.Kind, f.Code = FaultCode, 91000
		mustFault(t, b, f)
		var s strings.Builder
		for range calls {
			s.WriteString(outcome())
		}
		return s.String()
	}
	for _, tt := range []struct {
		fault Fault
		want  string
	}{
		{Fault{}, "xxxxx"},
		{Fault{Times: 2}, "xx..."},
		{Fault{After: 2, Times: 1}, "..x.."},
		{Fault{Path: PathQueryState, Times: 1}, "x...."},
		{Fault{Path: "/v4/*", Times: 1}, "x...."},
		{Fault{Path: PathTencentAccounts}, "....."},
		{Fault{Path: "/user/*"}, "....."},
		{Fault{IDs: []string{"on"}, Times: 1}, "x...."},
		{Fault{IDs: []string{"nobody"}}, "....."},
	} {
		if got := run(tt.fault, 5); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.fault, got, tt.want)
		}
	}
	hits := strings.Count(run(Fault{Probability: 0.5}, 200), "x")
	if hits < 60 || hits > 140 {
		t.Errorf("%d of 200 calls hit with probability 0.5", hits)
	}
	// Logins are hit only by their own path.
	mustFault(t, b, Fault{Kind: FaultCode, Code: 14})
	b.login()
	mustFault(t, b, Fault{Kind: FaultCode, Code: 14, Path: PathAdminToken})
	if g := b.must("POST", PathAdminToken, b.headers(""), `{}`); !strings.HasPrefix(g.body, `{"errCode":14`) {
		t.Errorf("login answered by %s", g.body)
	}
}

func TestFaultState(t *testing.T) {
	b := newBench(t, nil)
	setUsers(b)
	id := mustFault(t, b, Fault{Kind: FaultEmpty, Times: 1})
	for range 2 {
		if _, err := ask(b); err != nil {
			t.Fatal(err)
		}
	}
	want := []FaultState{{Fault: Fault{Kind: FaultEmpty, Times: 1}, ID: id, Hits: 1}}
	if diff := cmp.Diff(want, b.Faults()); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if b.ClearFault(id+1) || !b.ClearFault(id) || len(b.Faults()) != 0 {
		t.Error("ClearFault must end the fault of its number alone")
	}
}

func TestFaultValidation(t *testing.T) {
	b := newBench(t, nil)
	for _, f := range []Fault{
		{}, {Kind: "fire"}, {Kind: FaultStatus}, {Kind: FaultStatus, Status: 99}, {Kind: FaultCode}, {Kind: FaultDelay},
		{Kind: FaultPoison}, {Kind: FaultUserCode}, {Kind: FaultUnasked}, {Kind: FaultEmpty, Times: -1}, {Kind: FaultEmpty, Probability: 2},
		{Kind: FaultGatewayLost}, {Kind: FaultGatewayStopped, Share: 1.5}, {Kind: FaultRedisEmpty, Share: 1, For: -1},
	} {
		if id, err := b.AddFault(f); err == nil {
			t.Errorf("%+v was taken as fault %d", f, id)
		}
	}
}

func TestFaultHang(t *testing.T) {
	b := newBench(t, nil)
	mustFault(t, b, Fault{Kind: FaultHang})
	hung := make(chan error, 1)
	url := b.http.URL + PathQueryState + "?" + b.query().Encode()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	call := func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"To_Account":["off"]}`))
		if err == nil {
			_, err = b.http.Client().Do(req)
		}
		hung <- err
	}
	go call()
	waitFor(t, "the call to hang", func() bool { return b.Faults()[0].Hits == 1 })
	b.ClearFaults()
	if err := <-hung; !errors.Is(err, io.EOF) {
		t.Errorf("a call let go ends with %v, want EOF", err)
	}
	mustFault(t, b, Fault{Kind: FaultHang})
	go call()
	waitFor(t, "the call to hang", func() bool { return b.Faults()[0].Hits == 1 })
	cancel()
	if err := <-hung; !errors.Is(err, context.Canceled) {
		t.Errorf("a call given up ends with %v", err)
	}
}

func TestFaultDelay(t *testing.T) {
	b := newBench(t, nil)
	setUsers(b)
	mustFault(t, b, Fault{Kind: FaultDelay, Delay: 30 * time.Millisecond})
	start := time.Now()
	g, err := ask(b)
	if took := time.Since(start); err != nil || g.body != rightAnswer || took < 30*time.Millisecond {
		t.Errorf("%v after %s: %s", err, took, g.body)
	}
}

// TestFaultDrip: an endless answer ends with its fault, and does not
// count as served.
func TestFaultDrip(t *testing.T) {
	b := newBench(t, nil)
	setUsers(b)
	mustFault(t, b, Fault{Kind: FaultDrip, Delay: time.Hour})
	dripped := make(chan error, 1)
	go func() {
		_, err := ask(b)
		dripped <- err
	}()
	waitFor(t, "the answer to begin", func() bool { return b.Faults()[0].Hits == 1 })
	b.ClearFaults()
	if err := <-dripped; !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Errorf("the answer ends with %v", err)
	}
	if served := b.Served(TencentPresence, "on"); len(served) > 0 {
		t.Errorf("served %v", served)
	}
}

// waitFor polls until a condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-tick.C
	}
}
