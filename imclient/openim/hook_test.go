package openim

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

const hookSecret = "7d1fMADEUP-0123456789"

// capturedHook is a request that a real server sent.
type capturedHook struct {
	RequestURI string `json:"request_uri"` // /cb/<command>
	Body       string `json:"raw_body"`
}

// command is the last part of the URL.
func (c capturedHook) command() string {
	return c.RequestURI[strings.LastIndexByte(c.RequestURI, '/')+1:]
}

// capturedHooks returns the requests by the names of their files.
func capturedHooks(t testing.TB) map[string]capturedHook {
	t.Helper()
	files, err := filepath.Glob("testdata/hooks/*/*.json")
	if err != nil || len(files) != 15 {
		t.Fatalf("%d captured hooks, %v", len(files), err)
	}
	hooks := map[string]capturedHook{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var c capturedHook
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(filepath.Base(file), "-callback")
		hooks[name] = c
	}
	return hooks
}

// TestHooks_captured reads what a real server sent, with both forms of the URL.
func TestHooks_captured(t *testing.T) {
	hook := func(user string, state imclient.State, p imclient.Platform, seq int64) []imclient.Hook {
		return []imclient.Hook{{UserID: user, State: state, Platform: p, Logout: state == imclient.StateOffline, ToldAt: time.UnixMilli(seq).UTC()}}
	}
	const on, off = imclient.StateOnline, imclient.StateOffline
	ios, android, web := imclient.PlatformIOS, imclient.PlatformAndroid, imclient.PlatformWeb
	want := map[string][]imclient.Hook{
		"force_logout-1":                hook("u000501", off, android, 1796060169681),
		"gateway_login-1":               hook("u000502", on, android, 1796060179850),
		"kick_by_policy-1":              hook("u000501", on, android, 1796060163657),
		"kick_by_policy_second_login-1": hook("u000501", on, android, 1796060166660),
		"kick_by_policy_second_login-2": hook("u000501", off, android, 1796060166660),
		"kick_by_policy_second_login-3": hook("u000501", on, android, 1796060166660),
		"kick_by_policy_second_login-4": hook("u000501", on, android, 1796060167659),
		"killed_client-1":               hook("u000500", off, ios, 1796060160730),
		"login-1":                       hook("u000500", on, ios, 1796060148664),
		"logout_of_one_platform-1":      hook("u000500", on, ios, 1796060157658),
		"logout_of_one_platform-2":      hook("u000500", off, web, 1796060157658),
		"reconnected_other_gateway-1":   hook("u000502", on, android, 1796060189662),
		"register-1":                    nil,
		"second_platform-1":             hook("u000500", on, web, 1796060151689),
		"second_platform-2":             hook("u000500", on, ios, 1796060151689),
	}
	h := Hooks{Secret: hookSecret}
	got := map[string][]imclient.Hook{}
	for name, c := range capturedHooks(t) {
		for _, r := range []imclient.HookRequest{
			{Path: hookSecret + "/" + c.command()},
			{Path: hookSecret, Query: url.Values{"command": {c.command()}}},
		} {
			r.Body = strings.NewReader(c.Body)
			hooks, err := h.Read(r)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got[name] = append(got[name], hooks...)
		}
		if n := len(got[name]); n == 2 && got[name][0] == got[name][1] {
			got[name] = got[name][:1]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("captured hooks (-want +got):\n%s", diff)
	}
}

func TestHooks(t *testing.T) {
	const on = "callbackAfterUserOnlineCommand"
	const body = `{"platformID":2,"platform":"Android","userID":"u1","seq":1790000001555}`
	told := time.UnixMilli(1790000001555).UTC()
	android := imclient.PlatformAndroid
	for _, test := range []struct {
		name, path, query, body string
		want                    []imclient.Hook
		err                     error
	}{
		{"v3.0", hookSecret, "callbackUserOnlineCommand", body, []imclient.Hook{{UserID: "u1", State: imclient.StateOnline, Platform: android, ToldAt: told}}, nil},
		{"v3.5", hookSecret + "/callbackUserOfflineCommand", "", body, []imclient.Hook{{UserID: "u1", State: imclient.StateOffline, Platform: android, Logout: true, ToldAt: told}}, nil},
		{"kick", hookSecret + "/callbackAfterUserKickOffCommand", "", body, []imclient.Hook{{UserID: "u1", State: imclient.StateOffline, Platform: android, Logout: true, ToldAt: told}}, nil},
		{"platform by name", hookSecret + "/" + on, "", `{"platform":"HarmonyOS","userID":"u1"}`, []imclient.Hook{{UserID: "u1", State: imclient.StateOnline, Platform: imclient.PlatformHarmony}}, nil},
		{"platform of the future", hookSecret + "/" + on, "", `{"platformID":99,"userID":"u1","seq":"never"}`, []imclient.Hook{{UserID: "u1", State: imclient.StateOnline}}, nil},
		{"unknown command", hookSecret + "/callbackBeforeSendSingleMsgCommand", "", "IM", nil, nil},
		{"unknown command, old form", hookSecret, "callbackX", "IM", nil, nil},
		{"nobody", hookSecret + "/" + on, "", `{"userID":""}`, nil, nil},
		{"id too long", hookSecret + "/" + on, "", `{"userID":"` + strings.Repeat("x", 257) + `"}`, nil, nil},
		{"no JSON", hookSecret + "/" + on, "", "IM", nil, imclient.ErrHookMalformed},
		{"too long", hookSecret + "/" + on, "", `{"userID":"u1","a":[` + strings.Repeat("1,", imclient.MaxHookBody) + `1]}`, nil, imclient.ErrHookMalformed},
		{"wrong secret", "wrong/" + on, "", body, nil, imclient.ErrHookRefused},
		{"beginning of the secret", hookSecret[:20] + "/" + on, "", body, nil, imclient.ErrHookRefused},
		{"no secret", "/" + on, "", body, nil, imclient.ErrHookPath},
		{"no command", hookSecret, "", body, nil, imclient.ErrHookPath},
		{"empty command", hookSecret + "/", on, body, nil, imclient.ErrHookPath},
		{"below", hookSecret + "/" + on + "/x", "", body, nil, imclient.ErrHookPath},
		{"nothing", "", on, body, nil, imclient.ErrHookPath},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := imclient.HookRequest{Path: test.path, Query: url.Values{"command": {test.query}}, Body: strings.NewReader(test.body)}
			got, err := Hooks{Secret: hookSecret}.Read(r)
			if !errors.Is(err, test.err) || !cmp.Equal(got, test.want) {
				t.Errorf("%v, %v", cmp.Diff(test.want, got), err)
			}
			if err != nil && (strings.Contains(err.Error(), hookSecret[:8]) || strings.Contains(err.Error(), "u1")) {
				t.Errorf("something of the request is in %q", err)
			}
		})
	}
	if _, err := (Hooks{}).Read(imclient.HookRequest{Path: "x/" + on, Body: strings.NewReader(body)}); !errors.Is(err, imclient.ErrHookRefused) {
		t.Errorf("without a secret: %v", err)
	}
	if !json.Valid([]byte(HookAnswer)) {
		t.Error("the answer is no JSON")
	}
}

// FuzzHook looks for hooks that are read without the secret, or that name a user whom the
// body does not.
func FuzzHook(f *testing.F) {
	for _, c := range capturedHooks(f) {
		f.Add(hookSecret+"/"+c.command(), "", []byte(c.Body))
	}
	f.Add(hookSecret, "callbackUserOnlineCommand", []byte(`{"userID":"u1","userID":"u2"}`))
	f.Add(hookSecret, "callbackUserOfflineCommand", []byte(`{"userID":"u\u0031","platformID":"5","seq":9223372036854775807}`))
	f.Add(hookSecret+"//", "callbackUserOfflineCommand", []byte(`{"userID":{}}`))
	f.Add("wrong", "callbackUserOfflineCommand", []byte(`[`))
	h := Hooks{Secret: hookSecret}
	f.Fuzz(func(t *testing.T, path, command string, body []byte) {
		got, err := h.Read(imclient.HookRequest{Path: path, Query: url.Values{"command": {command}}, Body: strings.NewReader(string(body))})
		if err != nil {
			if got != nil || !errors.Is(err, imclient.ErrHookPath) && !errors.Is(err, imclient.ErrHookRefused) && !errors.Is(err, imclient.ErrHookMalformed) {
				t.Errorf("%v, %v", got, err)
			}
			return
		}
		if path != hookSecret && !strings.HasPrefix(path, hookSecret+"/") {
			t.Errorf("%q is taken", path)
		}
		for _, hook := range got {
			if CheckUserID(hook.UserID) != "" || !json.Valid(body) || !holdsString(body, hook.UserID) {
				t.Errorf("%q is read as %+v", body, hook)
			}
			if !hook.ToldAt.IsZero() && (hook.ToldAt.Year() < 1970 || hook.ToldAt.Year() > 2100) || hook.Logout == (hook.State == imclient.StateOnline) {
				t.Errorf("%q is read as %+v", body, hook)
			}
		}
	})
}

// holdsString reports whether a string of a JSON text, as it is decoded, is s.
func holdsString(body []byte, s string) bool {
	for d := json.NewDecoder(strings.NewReader(string(body))); ; {
		token, err := d.Token()
		if err != nil {
			return false
		}
		if text, ok := token.(string); ok && text == s {
			return true
		}
	}
}
