package main

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/imsim"
)

func TestUserAnswer(t *testing.T) {
	for _, test := range []struct{ json, state, platforms string }{
		{`{"To_Account":"a","State":"Offline"}`, "offline", `{}`},
		{`{"State":"PushOnline","Detail":[{"Platform":"iPhone","Status":"PushOnline"}]}`, "push_online", `{"ios": "push_online"}`},
		{`{"State":"Online","Detail":[{"Platform":"Web","Status":"Online"},{"Platform":"Web","Status":"Online"}]}`, "online", `{"web": "online"}`},
		{`{"State":"Online","Detail":[{"Platform":"Android","Status":"PushOnline"},{"Platform":"Android","Status":"Online"},{"Platform":"Web","Status":"Online"},{"Platform":"iPad","Status":"PushOnline"},{"Platform":"iPhone","Status":"Online"}]}`,
			"online", `{"ios": "online", "web": "online", "ipad": "push_online", "android": "online"}`},
	} {
		var u userAnswer
		if err := json.Unmarshal([]byte(test.json), &u); err != nil {
			t.Fatal(err)
		}
		if got := [2]string{u.state(), u.platforms()}; got != [2]string{test.state, test.platforms} {
			t.Errorf("%s is read as %q, want %q %q", test.json, got, test.state, test.platforms)
		}
	}
}

func TestDecode(t *testing.T) {
	for _, body := range []string{
		`{"ErrorCode":60007,"ErrorInfo":"too many"}`,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","State":"Online"}],"ErrorList":[{"To_Account":"b","ErrorCode":70107}]}`,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","State":"Online"}]}`,
		`half`,
	} {
		if got, err := decode([]byte(body), 2); err == nil {
			t.Errorf("decode(%s) gives %v", body, got)
		}
	}
}

// TestPlainClient asks the simulator, which checks the signature.
func TestPlainClient(t *testing.T) {
	sim := imsim.New(imsim.Config{Tencent: &imsim.Tencent{SDKAppID: sdkAppID, Admins: []string{identifier}, SecretKey: secretKey}})
	sim.Users().Set("anna", imsim.Device{Platform: imsim.IPad, Mode: imsim.Online})
	sim.Users().Set("ben")
	server := httptest.NewServer(sim)
	defer server.Close()
	client, err := newPlainClient(server.URL, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	body, err := client.ask(t.Context(), []string{"anna", "ben"})
	if err != nil {
		t.Fatal(err)
	}
	answers, err := decode(body, 2)
	if err != nil {
		t.Fatal(err)
	}
	var got []shown
	for _, a := range answers {
		got = append(got, shown{a.UserID, a.state(), a.platforms()})
	}
	want := []shown{{"anna", "online", `{"ipad": "online"}`}, {"ben", "offline", "{}"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(shown{})); diff != "" {
		t.Errorf("served (-want +got):\n%s", diff)
	}
}
