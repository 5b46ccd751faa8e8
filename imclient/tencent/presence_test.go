package tencent

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"syncer/imclient"
)

type (
	presences = imclient.Answer[imclient.Presence]
	observed  = imclient.Observed[imclient.Presence]
)

// ignoreTimes leaves the dates of answers to a test of their own.
func ignoreTimes[V comparable]() cmp.Option {
	return cmp.Options{cmpopts.IgnoreFields(imclient.Answer[V]{}, "AskedAt", "AnsweredAt"), cmpopts.EquateEmpty()}
}

// seen is a user in a state, with devices as stored.
func seen(t *testing.T, id string, state imclient.State, platforms string) observed {
	t.Helper()
	p, err := imclient.ParsePlatforms([]byte(platforms))
	if err != nil {
		t.Fatal(err)
	}
	return observed{UserID: id, Value: imclient.Presence{State: state, Platforms: p}}
}

func rejected(id, code, text string) imclient.UserError {
	return imclient.UserError{UserID: id, Code: code, Text: text}
}

const (
	missingText = "the answer says nothing about this user"
	noState     = "the answer has no known state: "
)

func TestQueryPresence(t *testing.T) {
	on := func(id string) observed { return seen(t, id, imclient.StateOnline, `{}`) }
	off := func(id string) observed { return seen(t, id, imclient.StateOffline, `{}`) }
	const aOnline = `{"To_Account":"a","Status":"Online"}`
	for name, tc := range map[string]struct {
		ids     []string
		answers []http.HandlerFunc
		want    presences
	}{
		"the document's sample, with devices": {
			ids: []string{"id1", "id2", "id3"},
			answers: []http.HandlerFunc{ok(`"QueryResult":[
				{"To_Account":"id3","Status":"PushOnline","Detail":[{"Platform":"Android","Status":"PushOnline"}]},
				{"To_Account":"id1","Status":"Online","Detail":[{"Platform":"iPhone","Status":"PushOnline"},{"Platform":"Web","Status":"Online"}]},
				{"To_Account":"id2","Status":"Offline"}]`)},
			want: presences{Observed: []observed{
				seen(t, "id1", imclient.StateOnline, `{"ios":"push_online","web":"online"}`),
				off("id2"),
				seen(t, "id3", imclient.StatePushOnline, `{"android":"push_online"}`),
			}, Calls: 1},
		},
		"State as querystate has it, no and null details": {
			ids: []string{"id1", "id2", "id3"},
			answers: []http.HandlerFunc{ok(`"QueryResult":[
				{"To_Account":"id1","State":"Offline","Detail":null},{"To_Account":"id2","State":"Online","Detail":[]},
				{"To_Account":"id3","State":"PushOnline"}],"ErrorList":[]`)},
			want: presences{Observed: []observed{off("id1"), on("id2"), seen(t, "id3", imclient.StatePushOnline, `{}`)}, Calls: 1},
		},
		"both spellings: Status wins": {
			ids:     []string{"a", "b"},
			answers: []http.HandlerFunc{ok(`"QueryResult":[{"To_Account":"a","State":"Offline","Status":"Online"},{"To_Account":"b","State":"Offline","Status":"Offline"}]`)},
			want:    presences{Observed: []observed{on("a"), off("b")}, Calls: 1},
		},
		"several devices of one platform, offline ones, unknown ones": {
			ids: []string{"a"},
			answers: []http.HandlerFunc{ok(`"QueryResult":[{"To_Account":"a","Status":"Online","Detail":[
				{"Platform":"PC","Status":"Offline"},{"Platform":"Web","Status":"PushOnline"},{"Platform":"WEB","Status":"Online"},
				{"Platform":"Fridge","Status":"Online"},{"Platform":"","Status":"PushOnline"},{"Platform":"Toaster","Status":"Offline"}]}]`)},
			want: presences{Observed: []observed{seen(t, "a", imclient.StateOnline, `{"web":"online","unknown":"online"}`)}, UnknownPlatforms: 2, Calls: 1},
		},
		"neither spelling, or a new state: asked again, then given up": {
			ids: []string{"a", "b", "c"},
			answers: []http.HandlerFunc{
				ok(`"QueryResult":[` + aOnline + `,{"To_Account":"b"},{"To_Account":"c","Status":"Invisible"}]`),
				ok(`"QueryResult":[{"To_Account":"b","Status":"Online"},{"To_Account":"c","Status":"Invisible"}]`),
			},
			want: presences{Observed: []observed{on("a"), on("b")}, Rejected: []imclient.UserError{
				rejected("c", imclient.CodeUnknownValue, noState+`"Invisible"`)}, Calls: 2},
		},
		"values of the wrong type spoil their user alone": {
			ids: []string{"a", "b", "c"},
			answers: []http.HandlerFunc{
				ok(`"QueryResult":[{"To_Account":"b","Status":1},` + aOnline + `,7,{"To_Account":"c","Status":"Online","Detail":"none"}]`),
				ok(`"QueryResult":[{"To_Account":"b","Status":{}}]`),
			},
			want: presences{Observed: []observed{on("a"), on("c")}, Rejected: []imclient.UserError{
				rejected("b", imclient.CodeUnknownValue, noState+`""`)}, Unasked: 1, Calls: 2},
		},
		"missing, placeholder, repeated and unasked": {
			ids: []string{"a", "b", "c"},
			answers: []http.HandlerFunc{
				ok(`"QueryResult":[` + aOnline + `,{"To_Account":"a","Status":"Offline"},{"To_Account":"@TLS#NOT_FOUND","Status":"Offline"},{"To_Account":"z","Status":"Online"}]`),
				ok(`"QueryResult":[{"To_Account":"c","Status":"Offline"}]`),
			},
			want: presences{Observed: []observed{on("a"), off("c")}, Unasked: 1, Calls: 2,
				Rejected: []imclient.UserError{rejected("b", imclient.CodeMissing, missingText)}},
		},
		"ErrorList: unknown for good, timed out once more": {
			ids: []string{"a", "b", "c", "d"},
			answers: []http.HandlerFunc{
				ok(`"QueryResult":[` + aOnline + `],"ErrorList":[{"To_Account":"b","ErrorCode":70107},{"To_Account":"c","ErrorCode":70169},{"To_Account":"d","ErrorCode":70169}]`),
				ok(`"QueryResult":[{"To_Account":"d","Status":"Online"}],"ErrorList":[{"To_Account":"c","ErrorCode":70169}]`),
			},
			want: presences{Observed: []observed{on("a"), on("d")}, Calls: 2,
				Rejected: []imclient.UserError{rejected("b", "70107", noSuchUser), rejected("c", "70169", timedOut)}},
		},
		"ErrorList: unknown codes": {
			ids: []string{"a", "b", "c"},
			answers: []http.HandlerFunc{
				ok(`"QueryResult":[` + aOnline + `],"ErrorList":[{"To_Account":"b","ErrorCode":12345},{"To_Account":"c"}]`),
				ok(`"ErrorList":[{"To_Account":"b","ErrorCode":12345},{"To_Account":"c","ErrorCode":[]}]`),
			},
			want: presences{Observed: []observed{on("a")}, Calls: 2, Rejected: []imclient.UserError{
				rejected("b", "12345", "the provider answers with code 12345 for this user"),
				rejected("c", imclient.CodeUnknownValue, "the answer marks this user as failed, without a code")}},
		},
		"every account failed, and the list says which": {
			ids:     []string{"a", "b"},
			answers: []http.HandlerFunc{fails(70107, `,"ErrorList":[{"To_Account":"b","ErrorCode":70107},{"To_Account":"a","ErrorCode":90048}]`)},
			want: presences{Calls: 1,
				Rejected: []imclient.UserError{rejected("a", "90048", noSuchUser), rejected("b", "70107", noSuchUser)}},
		},
		"every account failed, for different reasons": {
			ids: []string{"a", "b"},
			answers: []http.HandlerFunc{
				fails(70169, `,"ErrorList":[{"To_Account":"a","ErrorCode":70107},{"To_Account":"b","ErrorCode":70169}]`),
				ok(`"QueryResult":[{"To_Account":"b","Status":"Online"}]`),
			},
			want: presences{Observed: []observed{on("b")}, Rejected: []imclient.UserError{rejected("a", "70107", noSuchUser)}, Calls: 2},
		},
		"one account that times out": {
			ids: []string{"a"},
			answers: []http.HandlerFunc{
				fails(70169, `,"ErrorList":[{"To_Account":"a","ErrorCode":70169}]`),
				fails(70169, `,"ErrorList":[{"To_Account":"a","ErrorCode":70169}]`),
			},
			want: presences{Rejected: []imclient.UserError{rejected("a", "70169", timedOut)}, Calls: 2},
		},
		"the missing one is unknown when asked alone": {
			ids:     []string{"a", "b"},
			answers: []http.HandlerFunc{ok(`"QueryResult":[` + aOnline + `]`), answersWith(200, `{"ActionStatus":"FAIL","ErrorCode":70107,"ErrorInfo":"no such account"}`)},
			want: presences{Observed: []observed{on("a")}, Calls: 2,
				Rejected: []imclient.UserError{rejected("b", "70107", "no such account; "+noSuchUser)}},
		},
		"nothing at all in the answer": {
			ids:     []string{"a", "b"},
			answers: []http.HandlerFunc{ok(`"QueryResult":null`), ok(`"QueryResult":[]`)},
			want: presences{Calls: 2, Rejected: []imclient.UserError{
				rejected("a", imclient.CodeMissing, missingText), rejected("b", imclient.CodeMissing, missingText)}},
		},
		"a code that is none costs the others nothing": {
			ids: []string{"a", "b", "c"},
			answers: []http.HandlerFunc{
				ok(`"QueryResult":[` + aOnline + `],"ErrorList":[{"To_Account":"b","ErrorCode":"none"},{"To_Account":"c","ErrorCode":{}}]`),
				ok(`"QueryResult":[{"To_Account":"c","Status":"Online"}],"ErrorList":[{"To_Account":"b","ErrorCode":""}]`),
			},
			want: presences{Observed: []observed{on("a"), on("c")}, Calls: 2, Rejected: []imclient.UserError{
				rejected("b", imclient.CodeUnknownValue, "the answer marks this user as failed, without a code")}},
		},
		"codes as strings": {
			ids:     []string{"a"},
			answers: []http.HandlerFunc{says(`{"ActionStatus":"OK","ErrorCode":"0","QueryResult":[` + aOnline + `]}`)},
			want:    presences{Observed: []observed{on("a")}, Calls: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, tc.answers...)
			got, err := s.client().QueryPresence(t.Context(), tc.ids)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, ignoreTimes[imclient.Presence]()); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestQueryPresence_request(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   request
	}{
		"default": {
			change: func(c *Config) { c.Detail = false },
			want:   request{Path: "POST /v4/openim/query_online_status", Body: `{"To_Account":["a","b"]}`},
		},
		"devices, old name, address with a path": {
			change: func(c *Config) { c.PresenceAPI = "querystate"; c.BaseURL += "/im/" },
			want:   request{Path: "POST /im/v4/openim/querystate", Body: `{"IsNeedDetail":1,"To_Account":["a","b"]}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, ok(`"QueryResult":[{"To_Account":"a","State":"Online"},{"To_Account":"b","State":"Online"}]`))
			if _, err := s.client(tc.change).QueryPresence(t.Context(), []string{"a", "b"}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]request{tc.want}, s.requests(), cmpopts.IgnoreUnexported(request{})); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestQueryPresence_badIDsAreNotSent(t *testing.T) {
	bad := []string{"", strings.Repeat("x", 33), "früh", "tab\tbed", "del\x7f"}
	want := presences{Rejected: []imclient.UserError{
		rejected("", imclient.CodeInvalidID, "the user id is empty"),
		rejected(bad[1], imclient.CodeInvalidID, "the user id has 33 bytes, at most 32 are allowed"),
		rejected("früh", imclient.CodeInvalidID, "the user id has the byte 0xc3, only printable ASCII is allowed"),
		rejected("tab\tbed", imclient.CodeInvalidID, "the user id has the byte 0x09, only printable ASCII is allowed"),
		rejected("del\x7f", imclient.CodeInvalidID, "the user id has the byte 0x7f, only printable ASCII is allowed"),
	}}
	t.Run("alone", func(t *testing.T) {
		at := newClock()
		got, err := newServer(t).client(func(c *Config) { c.Now = at.now }).QueryPresence(t.Context(), bad)
		if err != nil {
			t.Fatal(err)
		}
		want := want
		want.AskedAt, want.AnsweredAt = at.now(), at.now()
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	})
	t.Run("among good ones", func(t *testing.T) {
		good := strings.Repeat("x", 32)
		s := newServer(t, ok(`"QueryResult":[{"To_Account":"`+good+`","Status":"Online"}]`))
		got, err := s.client().QueryPresence(t.Context(), append([]string{good}, bad...))
		if err != nil {
			t.Fatal(err)
		}
		want := want
		want.Observed, want.Calls = []observed{seen(t, good, imclient.StateOnline, `{}`)}, 1
		if diff := cmp.Diff(want, got, ignoreTimes[imclient.Presence]()); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
		if got := s.requests()[0].Body; got != `{"IsNeedDetail":1,"To_Account":["`+good+`"]}` {
			t.Errorf("sent %s", got)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		if got, err := newServer(t).client().QueryPresence(t.Context(), nil); err != nil || len(got.Observed)+len(got.Rejected)+got.Calls != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestPlatformOf(t *testing.T) {
	for name, want := range map[string]imclient.Platform{
		"iPhone": imclient.PlatformIOS, "IPhone": imclient.PlatformIOS, "IOS": imclient.PlatformIOS, "iPad": imclient.PlatformIPad,
		"Android": imclient.PlatformAndroid, "Web": imclient.PlatformWeb, "PC": imclient.PlatformWindows, "Windows": imclient.PlatformWindows,
		"Mac": imclient.PlatformMacOS, "macOS": imclient.PlatformMacOS, "Linux": imclient.PlatformLinux, "HarmonyOS": imclient.PlatformHarmony,
		"MiniProgram": imclient.PlatformMiniWeb, "APad": imclient.PlatformAndroidPad,
	} {
		if got, ok := platformOf(name); !ok || got != want {
			t.Errorf("%s is %s (%v), want %s", name, got, ok, want)
		}
	}
	if got, ok := platformOf("RESTAPI"); ok || got != imclient.PlatformUnknown {
		t.Errorf("RESTAPI is %s", got)
	}
}
