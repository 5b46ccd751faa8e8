package tencent

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

// The document's signature, and one with a made-up token.
const (
	hookToken = "a-made-up-token"
	hookTime  = "1790000000"
	hookSign  = "8821e99aa8e29454c433971f271cf1d76430222507d034f6b39b58f96083221a"
)

var hookNow = time.Unix(1790000000, 0)

// hookRequest is a signed hook; changes are parameters with other values, "" for none.
func hookRequest(body string, changes ...string) imclient.HookRequest {
	q := url.Values{
		"SdkAppid": {"1400000000"}, "CallbackCommand": {"State.StateChange"}, "contenttype": {"json"},
		"ClientIP": {"203.0.113.7"}, "OptPlatform": {"IOS"}, "Sign": {hookSign}, "RequestTime": {hookTime},
	}
	for i := 0; i < len(changes); i += 2 {
		q.Set(changes[i], changes[i+1])
	}
	return imclient.HookRequest{Query: q, Body: strings.NewReader(body), Now: hookNow}
}

// TestHooks_documentedSignature: the example of the document begins and ends like this.
func TestHooks_documentedSignature(t *testing.T) {
	h := Hooks{Token: "xxxxyyyy"}
	if sign := "17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061"; !h.signed("1669872112", sign) {
		t.Error("the document's signature is refused")
	}
	if !(Hooks{Token: hookToken}).signed(hookTime, hookSign) {
		t.Error("a signature made with sha256sum is refused")
	}
}

func TestHooks(t *testing.T) {
	told := time.UnixMilli(1790000000123).UTC()
	event := func(rest string) string {
		return `{"CallbackCommand":"State.StateChange","EventTime":1790000000123,` + rest + `}`
	}
	for _, test := range []struct {
		name, body, platform string
		want                 []imclient.Hook
	}{
		{"phone loses its connection", event(`"Info":{"Action":"Disconnect","To_Account":"u1","Reason":"LinkClose"}`), "IOS",
			[]imclient.Hook{{UserID: "u1", State: imclient.StatePushOnline, Platform: imclient.PlatformIOS, Logout: true, ToldAt: told}}},
		{"page closed", event(`"Info":{"Action":"Disconnect","To_Account":"u1","Reason":"TimeOut"}`), "Web",
			[]imclient.Hook{{UserID: "u1", State: imclient.StateOffline, Platform: imclient.PlatformWeb, Logout: true, ToldAt: told}}},
		{"logout", event(`"Info":{"Action":"Logout","To_Account":"u1","Reason":"Unregister"}`), "Android",
			[]imclient.Hook{{UserID: "u1", State: imclient.StateOffline, Platform: imclient.PlatformAndroid, Logout: true, ToldAt: told}}},
		{"login that ends another device's", event(`"Info":{"Action":"Login","To_Account":"u1","Reason":"Register"},"KickedDevice":[{"Platform":"Android"}]`), "iPad",
			[]imclient.Hook{{UserID: "u1", State: imclient.StateOnline, Platform: imclient.PlatformIPad, ToldAt: told}}},
		{"kicked over the API", event(`"Info":{"Action":"Logout","To_Account":"u1","Reason":"Unregister"}`), "RESTAPI",
			[]imclient.Hook{{UserID: "u1", State: imclient.StateOffline, Logout: true, ToldAt: told}}},
		{"action of the future", event(`"Info":{"Action":"Teleport","To_Account":"u1","Reason":7}`), "Fridge",
			[]imclient.Hook{{UserID: "u1", ToldAt: told}}},
		{"time as text, and of a clock that is wrong", `{"EventTime":"-5","Info":{"Action":"Login","To_Account":"u1"}}`, "PC",
			[]imclient.Hook{{UserID: "u1", State: imclient.StateOnline, Platform: imclient.PlatformWindows}}},
		{"custom status", event(`"Info":{"Action":"CustomStatusChange","To_Account":"u1","Reason":"SetCustomStatus","CustomStatus":"busy"}`), "IOS", nil},
		{"custom status beside Info", event(`"Info":{"Action":"CustomStatusChange","To_Account":"u1"},"CustomStatus":"busy"`), "IOS", nil},
		{"nobody", event(`"Info":{"Action":"Login"}`), "IOS", nil},
		{"no user can have this id", event(`"Info":{"Action":"Login","To_Account":"` + strings.Repeat("x", 33) + `"}`), "IOS", nil},
		{"an id of another type", event(`"Info":{"Action":"Login","To_Account":["u1"]}`), "IOS", nil},
		{"no Info", `{}`, "IOS", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Hooks{SDKAppID: testApp, Token: hookToken}.Read(hookRequest(test.body, "OptPlatform", test.platform))
			if err != nil || !cmp.Equal(got, test.want) {
				t.Errorf("%v, %v", cmp.Diff(test.want, got), err)
			}
		})
	}
}

// neverRead is a body that must not be read.
type neverRead struct{ t *testing.T }

func (b neverRead) Read([]byte) (int, error) {
	b.t.Error("the body is read")
	return 0, errors.New("read")
}

func TestHooks_refused(t *testing.T) {
	const body = `{"Info":{"Action":"Login","To_Account":"u1"}}`
	for _, test := range []struct {
		name, why string
		is        error
		request   imclient.HookRequest
		token     string
	}{
		{"no token", "hook_token_file", imclient.ErrHookRefused, hookRequest(body), ""},
		{"not signed", "not signed", imclient.ErrHookRefused, hookRequest(body, "Sign", ""), hookToken},
		{"another token", "signature", imclient.ErrHookRefused, hookRequest(body), "another"},
		{"signature cut off", "signature", imclient.ErrHookRefused, hookRequest(body, "Sign", hookSign[:63]), hookToken},
		{"signature of another time", "signature", imclient.ErrHookRefused, hookRequest(body, "RequestTime", "1790000001"), hookToken},
		{"another app", "SdkAppid", imclient.ErrHookRefused, hookRequest(body, "SdkAppid", "1400000001"), hookToken},
		{"below", "", imclient.ErrHookPath, func() imclient.HookRequest { r := hookRequest(body); r.Path = "x"; return r }(), hookToken},
		{"old", "RequestTime", imclient.ErrHookRefused, func() imclient.HookRequest { r := hookRequest(body); r.Now = hookNow.Add(61 * time.Second); return r }(), hookToken},
		{"of the future", "RequestTime", imclient.ErrHookRefused, func() imclient.HookRequest { r := hookRequest(body); r.Now = hookNow.Add(-61 * time.Second); return r }(), hookToken},
		{"no JSON", "JSON", imclient.ErrHookMalformed, hookRequest("IM"), hookToken},
		{"cut off", "JSON", imclient.ErrHookMalformed, hookRequest(body[:len(body)-1]), hookToken},
		{"two in one", "JSON", imclient.ErrHookMalformed, hookRequest(body + body), hookToken},
		{"too long", "JSON", imclient.ErrHookMalformed, hookRequest(`{"a":[` + strings.Repeat("1,", imclient.MaxHookBody) + `1]}`), hookToken},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Hooks{SDKAppID: testApp, Token: test.token}.Read(test.request)
			if got != nil || !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.why) {
				t.Errorf("%v, %v", got, err)
			}
			checkHookText(t, err)
		})
	}
	edges := hookRequest(body)
	for _, now := range []time.Time{hookNow.Add(time.Minute), hookNow.Add(-time.Minute)} {
		edges.Now, edges.Body = now, strings.NewReader(body)
		if got, err := (Hooks{SDKAppID: testApp, Token: hookToken}).Read(edges); len(got) != 1 || err != nil {
			t.Errorf("a minute away: %v, %v", got, err)
		}
	}
}

// TestHooks_otherCallbacks: the single URL of an app gets them all, and those before a
// message hold it up.
func TestHooks_otherCallbacks(t *testing.T) {
	for _, command := range []string{"C2C.CallbackBeforeSendMsg", "Group.CallbackAfterNewMemberJoin", ""} {
		r := hookRequest("", "CallbackCommand", command)
		r.Body = neverRead{t}
		if got, err := (Hooks{SDKAppID: testApp, Token: hookToken}).Read(r); got != nil || err != nil {
			t.Errorf("%q: %v, %v", command, got, err)
		}
	}
	if !json.Valid([]byte(HookAnswer)) {
		t.Error("the answer is no JSON")
	}
}

// checkHookText fails if an error repeats anything of a request.
func checkHookText(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{hookToken, hookSign[:16], "203.0.113.7", "u1"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s is in %q", secret, err)
		}
	}
}

// FuzzHook looks for hooks that are read though they are not signed, or that name a user
// whom the body does not.
func FuzzHook(f *testing.F) {
	query := hookRequest("").Query.Encode()
	f.Add(query, []byte(`{"CallbackCommand":"State.StateChange","EventTime":1790000000123,"Info":{"Action":"Disconnect","To_Account":"user-000447","Reason":"LinkClose"}}`))
	f.Add(query, []byte(`{"EventTime":1790000042001,"Info":{"Action":"Login","To_Account":"u\u0031","Reason":"Register"},"KickedDevice":[{"Platform":"Android"}]}`))
	f.Add(query, []byte(`{"EventTime":9223372036854775807,"Info":{"Action":"Logout","To_Account":"u"},"Info":{"To_Account":"v"}}`))
	f.Add(query+"&Sign=x&SdkAppid=1", []byte(`{"Info":{"Action":{},"To_Account":"\ud800"}}`))
	f.Add("Sign="+hookSign+"&RequestTime="+hookTime+"&SdkAppid=1400000000&CallbackCommand=State.StateChange", []byte(`{"Info":null}`))
	f.Add("Sign=%", []byte("["))
	h := Hooks{SDKAppID: testApp, Token: hookToken}
	f.Fuzz(func(t *testing.T, query string, body []byte) {
		q, _ := url.ParseQuery(query)
		got, err := h.Read(imclient.HookRequest{Query: q, Body: strings.NewReader(string(body)), Now: hookNow})
		if err != nil {
			if !errors.Is(err, imclient.ErrHookRefused) && !errors.Is(err, imclient.ErrHookMalformed) || got != nil {
				t.Errorf("%v, %v", got, err)
			}
			return
		}
		if q.Get("Sign") != hookSign || q.Get("RequestTime") != hookTime {
			t.Errorf("%q is taken", query)
		}
		for _, hook := range got {
			if !isDocumentedID(hook.UserID) || !stringsIn(body)[hook.UserID] || !json.Valid(body) {
				t.Errorf("%q is read as %+v", body, hook)
			}
			if !hook.ToldAt.IsZero() && (hook.ToldAt.Year() < 1970 || hook.ToldAt.Year() > 2100) || hook.Logout == (hook.State == imclient.StateOnline || hook.State == imclient.StateUnknown) {
				t.Errorf("%q is read as %+v", body, hook)
			}
		}
	})
}
