package openim

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

type presences = imclient.Answer[imclient.Presence]

// seen is a user in a state, with devices as stored.
func seen(t *testing.T, id string, state imclient.State, platforms string) imclient.Observed[imclient.Presence] {
	t.Helper()
	p, err := imclient.ParsePlatforms([]byte(platforms))
	if err != nil {
		t.Fatal(err)
	}
	return imclient.Observed[imclient.Presence]{UserID: id, Value: imclient.Presence{State: state, Platforms: p}}
}

func rejected(id, code, text string) imclient.UserError {
	return imclient.UserError{UserID: id, Code: code, Text: text}
}

// data wraps what a success says.
func data(json string) http.HandlerFunc {
	return says(`{"errCode":0,"errMsg":"","errDlt":"","data":` + json + `}`)
}

const (
	missingText = "the answer says nothing about this user"
	noState     = "the answer has no known state: "
)

func TestQueryPresence(t *testing.T) {
	const aOnline = `{"userID":"a","status":1,"detailPlatformStatus":null}`
	a := seen(t, "a", imclient.StateOnline, `{}`)
	for name, tc := range map[string]struct {
		ids     []string
		answers []http.HandlerFunc
		want    presences
	}{
		"every platform, by id and by name": {
			ids: []string{"a", "b"},
			answers: []http.HandlerFunc{data(`[{"userID":"a","status":1,"detailPlatformStatus":[
				{"platformID":1,"connID":"conn-id","isBackground":false,"token":"session-token"},{"platformID":2},{"platformID":3},{"platformID":4},{"platformID":5},
				{"platformID":6,"isBackground":true},{"platformID":7},{"platformID":8},{"platformID":9},{"platformID":10},{"platformID":11}]},
				{"userID":"b","status":"online","detailPlatformStatus":[{"platform":"IOS","status":"online"},{"platform":"Android"},{"platform":"windows"},
				{"platform":"OSX"},{"platform":"Web"},{"platform":"MiniWeb","isBackground":true},{"platform":"Linux"},{"platform":"APad"},{"platform":"IPad"},
				{"platform":"Admin"},{"platform":"HarmonyOS"}]}]`)},
			want: presences{Calls: 1, Observed: []imclient.Observed[imclient.Presence]{
				seen(t, "a", imclient.StateOnline, everyPlatform), seen(t, "b", imclient.StateOnline, everyPlatform)}},
		},
		"several connections on a platform, unknown ones, gone ones": {
			ids: []string{"a"},
			answers: []http.HandlerFunc{data(`[{"userID":"a","status":1,"detailPlatformStatus":[{"platformID":2,"isBackground":true},{"platformID":2},
				{"platformID":12},{"platformID":-1},{"platform":"Fridge","isBackground":true},{},{"platform":"Web","status":"offline"}]}]`)},
			want: presences{Calls: 1, UnknownPlatforms: 4, Observed: []imclient.Observed[imclient.Presence]{
				seen(t, "a", imclient.StateOnline, `{"android":"online","unknown":"online"}`)}},
		},
		"numbers as strings": {
			ids:     []string{"a"},
			answers: []http.HandlerFunc{says(`{"errCode":"0","data":[{"userID":"a","status":"1","detailPlatformStatus":[{"platformID":"5"}]}]}`)},
			want:    presences{Calls: 1, Observed: []imclient.Observed[imclient.Presence]{seen(t, "a", imclient.StateOnline, `{"web":"online"}`)}},
		},
		"missing, repeated, unasked": {
			ids: []string{"b", "a", "c"},
			answers: []http.HandlerFunc{
				data(`[` + aOnline + `,{"userID":"a","status":0},{"userID":"z","status":0},{"userID":"","status":0}]`),
				data(`[{"userID":"c","status":0}]`),
			},
			want: presences{Calls: 2, Unasked: 2, Rejected: []imclient.UserError{rejected("b", imclient.CodeMissing, missingText)},
				Observed: []imclient.Observed[imclient.Presence]{a, seen(t, "c", imclient.StateOffline, `{}`)}},
		},
		"unknown states, and of the wrong type": {
			ids: []string{"a", "b", "c", "d"},
			answers: []http.HandlerFunc{
				data(`[` + aOnline + `,{"userID":"b","status":2},{"userID":"c","status":true},{"userID":"d"},7,{"userID":5,"status":1}]`),
				data(`[{"userID":"b","status":"away"},{"userID":"c","status":null},{"userID":"d","status":1,"detailPlatformStatus":{"platformID":1}}]`),
			},
			want: presences{Calls: 2, Unasked: 2,
				Observed: []imclient.Observed[imclient.Presence]{a, seen(t, "d", imclient.StateOnline, `{}`)},
				Rejected: []imclient.UserError{
					rejected("b", imclient.CodeUnknownValue, noState+`"away"`), rejected("c", imclient.CodeUnknownValue, noState+`""`)}},
		},
		"no data": {
			ids:     []string{"a"},
			answers: []http.HandlerFunc{says(`{"errCode":0,"errMsg":"","errDlt":""}`), data(`null`)},
			want:    presences{Calls: 2, Rejected: []imclient.UserError{rejected("a", imclient.CodeMissing, missingText)}},
		},
		"ids that must not be sent": {
			ids:     []string{"", "a", strings.Repeat("x", 257), "\xff", "a\x00"},
			answers: []http.HandlerFunc{data(`[` + aOnline + `]`)},
			want: presences{Calls: 1, Observed: []imclient.Observed[imclient.Presence]{a}, Rejected: []imclient.UserError{
				rejected("", imclient.CodeInvalidID, "the user id is empty"),
				rejected(strings.Repeat("x", 257), imclient.CodeInvalidID, "the user id has 257 bytes, at most 256 are allowed"),
				rejected("\xff", imclient.CodeInvalidID, "the user id is not valid UTF-8"),
				rejected("a\x00", imclient.CodeInvalidID, "the user id holds a NUL byte")}},
		},
		"ids of older servers": {
			ids:     []string{"a:b é/…"},
			answers: []http.HandlerFunc{data(`[{"userID":"a:b é/…","status":0}]`)},
			want:    presences{Calls: 1, Observed: []imclient.Observed[imclient.Presence]{seen(t, "a:b é/…", imclient.StateOffline, `{}`)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, map[string][]http.HandlerFunc{online: tc.answers})
			c := s.client()
			admin, err := c.exchange.Credentials.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.exchange.Credentials.Settle(admin, imclient.Accepted)
			got, err := c.QueryPresence(t.Context(), tc.ids)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, ignoreTimes[imclient.Presence]()); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

const everyPlatform = `{"ios":"online","ipad":"online","android":"online","android_pad":"online","web":"online","mini_web":"background",` +
	`"windows":"online","macos":"online","linux":"online","harmony":"online","admin":"online"}`

func TestCheckAccounts(t *testing.T) {
	s := newServer(t, map[string][]http.HandlerFunc{check: {
		data(`{"results":[{"userID":"b","accountStatus":"unregistered"},{"userID":"a","accountStatus":1},{"userID":"a","accountStatus":0},
			{"userID":"c","accountStatus":7},{"userID":"z","accountStatus":1}]}`),
		data(`{"results":[{"userID":"c","accountStatus":"frozen"},{"userID":"d","accountStatus":"0"}]}`),
	}})
	got, err := s.client().CheckAccounts(t.Context(), []string{"a", "b", "c", "d", "e", ""})
	if err != nil {
		t.Fatal(err)
	}
	want := imclient.Answer[imclient.AccountStatus]{
		Observed: []imclient.Observed[imclient.AccountStatus]{
			{UserID: "a", Value: imclient.StatusImported}, {UserID: "b", Value: imclient.StatusNotImported}, {UserID: "d", Value: imclient.StatusNotImported}},
		Rejected: []imclient.UserError{
			rejected("c", imclient.CodeUnknownValue, `the answer has no known registration status: "frozen"`),
			rejected("e", imclient.CodeMissing, missingText),
			rejected("", imclient.CodeInvalidID, "the user id is empty")},
		Unasked: 1,
		Calls:   2, // without the login
	}
	if diff := cmp.Diff(want, got, ignoreTimes[imclient.AccountStatus]()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestRequests(t *testing.T) {
	s := newServer(t, map[string][]http.HandlerFunc{
		"/im" + newLogin: {data(`{"token":"admin-token-1","expireTimeSeconds":100}`)},
		"/im" + online:   {data(`[{"userID":"a","status":0},{"userID":"b","status":0}]`)},
		"/im" + check:    {data(`{"results":[{"userID":"imAdmin","accountStatus":1}]}`)},
	})
	c := s.client(func(c *Config) { c.BaseURL += "/im/" })
	if _, err := c.QueryPresence(t.Context(), []string{"a", "b"}); err != nil {
		t.Error(err)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	want := []request{
		{Path: "POST /im/auth/get_admin_token", Body: `{"secret":"made-up-secret","userID":"imAdmin"}`},
		{Path: "POST /im/user/get_users_online_status", Token: "admin-token-1", Body: `{"userIDs":["a","b"]}`},
		{Path: "POST /im/user/account_check", Token: "admin-token-1", Body: `{"checkUserIDs":["imAdmin"]}`},
	}
	if diff := cmp.Diff(want, s.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestAnswer_dates(t *testing.T) {
	at := newClock()
	start := at.now()
	after := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			at.advance(time.Second)
			h(w, r)
		}
	}
	s := newServer(t, map[string][]http.HandlerFunc{online: {after(data(`null`)), after(data(`[{"userID":"a","status":1}]`))}})
	c := s.client(func(c *Config) { c.Now = at.now })
	answer, err := c.QueryPresence(t.Context(), []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	if !answer.AskedAt.Equal(start) || !answer.AnsweredAt.Equal(start.Add(2*time.Second)) {
		t.Errorf("dated %s to %s, want the first question to the second answer", answer.AskedAt, answer.AnsweredAt)
	}
	if answer, err := c.QueryPresence(t.Context(), nil); err != nil || answer.Calls != 0 || !answer.AskedAt.Equal(at.now()) {
		t.Errorf("nobody: %+v, %v", answer, err)
	}
}
