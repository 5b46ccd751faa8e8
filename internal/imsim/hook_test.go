package imsim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hooked is a simulator that sends hooks to a receiver which notes them: Tencent's as
// "t user action platform", OpenIM's as "o user command platform"; forged ones end so.
type hooked struct {
	*Server
	mu   sync.Mutex
	got  []string
	told []time.Time // of got
	now  time.Time
}

func newHooked(t *testing.T, before35 bool) *hooked {
	t.Helper()
	h := &hooked{now: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.receive(t, w, r) }))
	t.Cleanup(receiver.Close)
	h.Server = New(Config{
		Tencent: &Tencent{SDKAppID: 1400000001, Admins: []string{"administrator"}, SecretKey: "k", HookURL: receiver.URL + "/hooks/main", HookToken: "token"},
		OpenIM:  &OpenIM{AdminUserID: "imAdmin", Secret: "s", HookURL: receiver.URL + "/hooks/chat/secret", HooksBefore35: before35},
		Now:     func() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.now },
	})
	t.Cleanup(func() {
		for _, s := range h.hooks {
			s.client.CloseIdleConnections()
		}
	})
	h.Users().Set("u1", Device{IOS, Online}, Device{Web, Online})
	h.Users().Set("u2")
	h.WatchHooks("u1", "u2")
	return h
}

func (h *hooked) receive(t *testing.T, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	var event struct {
		EventTime, Seq           int64
		UserID, Platform, ConnID string
		Info                     struct {
			Action  string
			Account string `json:"To_Account"`
			Reason  string
		}
	}
	if err := json.Unmarshal(body, &event); err != nil {
		t.Errorf("%s: %v", body, err)
	}
	q := r.URL.Query()
	text, genuine := "", false
	if strings.HasPrefix(r.URL.Path, "/hooks/chat/") {
		path, command, found := strings.Cut(strings.TrimPrefix(r.URL.Path, "/hooks/chat/"), "/")
		if !found {
			command = q.Get("command")
		}
		text, genuine = fmt.Sprintf("o %s %s %s", event.UserID, command, event.Platform), path == "secret"
	} else {
		sum := sha256.Sum256([]byte("token" + q.Get("RequestTime")))
		text, genuine = fmt.Sprintf("t %s %s %s", event.Info.Account, event.Info.Action, q.Get("OptPlatform")), q.Get("Sign") == hex.EncodeToString(sum[:])
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !genuine {
		text += " forged"
		w.WriteHeader(http.StatusUnauthorized)
	}
	h.got = append(h.got, text)
	h.told = append(h.told, time.UnixMilli(event.EventTime+event.Seq).UTC())
}

// sends returns the hooks of one provider that are sent after a while.
func (h *hooked) sends(t *testing.T, provider string, after time.Duration) string {
	t.Helper()
	h.mu.Lock()
	h.now = h.now.Add(after)
	h.got, h.told = nil, nil
	h.mu.Unlock()
	h.SendHooks(t.Context())
	return h.noted(provider)
}

func TestHooks(t *testing.T) {
	h := newHooked(t, false)
	if got := h.sends(t, "t", time.Second) + h.sends(t, "o", time.Second); got != "" {
		t.Errorf("before a change: %s", got)
	}
	for _, step := range []struct {
		devices         []Device
		tencent, openIM string
	}{
		{[]Device{{IOS, Background}, {Web, Online}}, "", ""},
		{[]Device{{IOS, Push}, {Web, Online}}, "u1 Disconnect IOS", "u1 Online Web, u1 Offline IOS"},
		{[]Device{{IOS, Push}}, "u1 Disconnect Web", "u1 Offline Web"},
		{nil, "", ""},
		{[]Device{{Android, Online}}, "u1 Login Android", "u1 Online Android"},
		{nil, "u1 Logout Android", "u1 Offline Android"},
	} {
		h.Users().Set("u1", step.devices...)
		if tencent, openIM := h.sends(t, "t", time.Second), h.noted("o"); tencent != step.tencent || openIM != step.openIM {
			t.Errorf("%v: Tencent sends %q, want %q; OpenIM %q, want %q", step.devices, tencent, step.tencent, openIM, step.openIM)
		}
	}
}

// TestHooks_forms compares the requests with those of real servers.
func TestHooks_forms(t *testing.T) {
	files, err := filepath.Glob("../../imclient/openim/testdata/hooks/*/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no captured requests")
	}
	platform := map[string]Platform{"IOS": IOS, "Android": Android, "Web": Web}
	volatile := regexp.MustCompile(`"operationID":"p_\d+_\d+"|"seq":\d{13}`)
	blank := func(s string) string {
		return volatile.ReplaceAllStringFunc(s, func(v string) string { return v[:strings.IndexByte(v, ':')] })
	}
	sim := New(Config{OpenIM: &OpenIM{AdminUserID: "imAdmin", Secret: "s", HookURL: "http://h/cb"}})
	compared := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var captured struct {
			URI  string `json:"request_uri"`
			Body string `json:"raw_body"`
		}
		var body struct {
			UserID, Platform string
			IsAppBackground  bool
		}
		if json.Unmarshal(text, &captured) != nil || json.Unmarshal([]byte(captured.Body), &body) != nil {
			t.Fatal(file)
		}
		if body.UserID == "" {
			continue // a registration
		}
		h := hook{userID: body.UserID, platform: platform[body.Platform], is: Online}
		if strings.Contains(captured.URI, "Offline") {
			h.was, h.is = Online, 0
		} else if body.IsAppBackground {
			h.is = Background
		}
		url, sent := sim.openIM.request(h, time.Now())
		if url != "http://h"+captured.URI || blank(string(sent)) != blank(captured.Body) {
			t.Errorf("%s: %s %s\ncaptured %s", file, url, sent, captured.Body)
		}
		compared++
	}
	if compared != 14 {
		t.Errorf("%d requests compared, want 14", compared)
	}
	old := New(Config{OpenIM: &OpenIM{AdminUserID: "imAdmin", Secret: "s", HookURL: "http://h/cb/secret", HooksBefore35: true}})
	if url, _ := old.openIM.request(hook{userID: "u", is: Online}, time.Now()); url != "http://h/cb/secret?command=callbackUserOnlineCommand" {
		t.Errorf("before 3.5: %s", url)
	}
}

func TestHooks_faults(t *testing.T) {
	for _, test := range []struct {
		name            string
		fault           Fault
		tencent, openIM string
		later           string // what Tencent sends after a minute
	}{
		{"none", Fault{Kind: FaultHookLost, IDs: []string{"u2"}}, "u1 Disconnect IOS, u1 Disconnect Web", "u1 Offline IOS, u1 Offline Web", ""},
		{"lost", Fault{Kind: FaultHookLost}, "", "", ""},
		{"lost once", Fault{Kind: FaultHookLost, Times: 1, Path: PathTencentHooks}, "u1 Disconnect Web", "u1 Offline IOS, u1 Offline Web", ""},
		{"doubled", Fault{Kind: FaultHookDoubled, Times: 1, Path: PathOpenIMHooks}, "u1 Disconnect IOS, u1 Disconnect Web", "u1 Offline IOS, u1 Offline IOS, u1 Offline Web", ""},
		{"late", Fault{Kind: FaultHookLate, Times: 1}, "u1 Disconnect Web", "u1 Offline IOS, u1 Offline Web", "u1 Disconnect IOS"},
		{"reordered", Fault{Kind: FaultHookReordered, Times: 1}, "u1 Disconnect Web, u1 Disconnect IOS", "u1 Offline IOS, u1 Offline Web", ""},
		{"all reordered", Fault{Kind: FaultHookReordered}, "", "", "u1 Disconnect IOS, u1 Disconnect Web"},
		{"forged", Fault{Kind: FaultHookForged, Times: 1, Path: PathTencentHooks}, "u1 Login IOS forged, u1 Disconnect IOS, u1 Disconnect Web", "u1 Offline IOS, u1 Offline Web", ""},
		{"forged for OpenIM", Fault{Kind: FaultHookForged, Times: 1, Path: PathOpenIMHooks}, "u1 Disconnect IOS, u1 Disconnect Web", "u1 Online IOS forged, u1 Offline IOS, u1 Offline Web", ""},
		{"false", Fault{Kind: FaultHookFalse, Times: 1}, "u1 Login IOS, u1 Disconnect IOS, u1 Disconnect Web", "u1 Offline IOS, u1 Offline Web", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHooked(t, false)
			if _, err := h.AddFault(test.fault); err != nil {
				t.Fatal(err)
			}
			h.Users().Set("u1", Device{IOS, Push})
			tencent := h.sends(t, "t", time.Second)
			openIM := h.noted("o")
			if tencent != test.tencent || openIM != test.openIM {
				t.Errorf("Tencent sends %q, want %q; OpenIM %q, want %q", tencent, test.tencent, openIM, test.openIM)
			}
			if later := h.sends(t, "t", time.Minute); later != test.later {
				t.Errorf("later Tencent sends %q, want %q", later, test.later)
			}
			for i, at := range h.told {
				if at.After(h.now) || at.Before(h.now.Add(-2*time.Minute)) {
					t.Errorf("%s told at %s", h.got[i], at)
				}
			}
		})
	}
}

// noted returns the hooks of one provider that were sent last.
func (h *hooked) noted(provider string) string {
	var lines []string
	for _, line := range h.got {
		if rest, ok := strings.CutPrefix(line, provider+" "); ok {
			lines = append(lines, strings.NewReplacer("callbackAfterUser", "", "Command", "").Replace(rest))
		}
	}
	return strings.Join(lines, ", ")
}

// TestHooks_ofAll: OpenIM's repetition, its trap, and a storm.
func TestHooks_ofAll(t *testing.T) {
	h := newHooked(t, false)
	add := func(f Fault) {
		t.Helper()
		if _, err := h.AddFault(f); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what, provider, want string, after time.Duration) {
		t.Helper()
		if got := h.sends(t, provider, after); got != want {
			t.Errorf("%s: sent %q, want %q", what, got, want)
		}
	}
	add(Fault{Kind: FaultHookRepeat, Path: PathOpenIMHooks})
	want("nothing to repeat yet", "o", "", 9*time.Minute)
	want("repeated", "o", "u1 Online IOS, u1 Online Web", time.Minute)
	want("not repeated", "o", "", 9*time.Minute)
	want("repeated again", "o", "u1 Online IOS, u1 Online Web", time.Minute)
	h.ClearFaults()
	add(Fault{Kind: FaultHookTrap, Path: PathOpenIMHooks, Times: 1})
	h.Users().Set("u1", Device{IOS, Online}, Device{Web, Online}, Device{Android, Online})
	want("trap", "o", "u1 Online IOS, u1 Offline IOS, u1 Online Android, u1 Online Web", time.Second)
	h.ClearFaults()
	add(Fault{Kind: FaultHookStorm, Times: 1, Path: PathTencentHooks})
	want("storm", "t", "u1 Disconnect IOS, u1 Disconnect Android, u1 Disconnect Web, u1 Login IOS, u1 Login Android, u1 Login Web", time.Second)
	want("after the storm", "t", "", time.Second)
	if stats := h.Stats().Hooks; stats[PathTencentHooks].Taken == 0 || stats[PathOpenIMHooks].Failed > 0 {
		t.Errorf("figures %+v", stats)
	}
}

// TestHooks_exact: hooks of a population that follows from the time have the time of the
// change, and are sent about users of whom the API was asked.
func TestHooks_exact(t *testing.T) {
	h := newHooked(t, false)
	daily := NewDaily(1, h.now)
	h.Server.users = NewFixed(daily)
	var ids []string
	for i := range 300 {
		ids = append(ids, fmt.Sprintf("user-%d", i))
	}
	h.hookedBy(OpenIMPresence, ids)
	h.hookedBy(TencentPresence, ids)
	h.sends(t, "t", time.Hour)
	if len(h.got) < 50 {
		t.Fatalf("only %d hooks in an hour", len(h.got))
	}
	for i, line := range h.got {
		words := strings.Fields(line)
		if words[0] != "t" || !slices.Contains(ids, words[1]) {
			continue
		}
		before, _ := h.reachAt(nil, words[1], h.told[i].Add(-2*time.Second))
		after, _ := h.reachAt(nil, words[1], h.told[i].Add(time.Second))
		if before == after {
			t.Errorf("%s: nothing changed at %s", line, h.told[i])
		}
	}
}
