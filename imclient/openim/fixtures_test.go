package openim

import (
	"errors"
	"net/http"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

// expectation is what an answer captured from a real server means: users by id,
// as state and platforms, status, or code of rejection; or a failure.
type expectation struct {
	users      map[string]string
	class      imclient.Class // together with code
	code       string
	retryAfter time.Duration
}

func users(idsAndValues ...string) expectation {
	e := expectation{users: map[string]string{}}
	for i := 0; i < len(idsAndValues); i += 2 {
		e.users[idsAndValues[i]] = idsAndValues[i+1]
	}
	return e
}

func failed(class imclient.Class, code string) expectation {
	return expectation{class: class, code: code}
}

// expected holds an expectation for each captured answer, for every version or,
// with the version in front, for one. Refused tokens are fatal because the
// server of the test refuses the next one just as well.
var expected = map[string]expectation{
	"account_check_dup.json":                failed(imclient.ClassBadBatch, "1001"),
	"account_check_empty.json":              failed(imclient.ClassBadBatch, "1001"),
	"main-7848d7c/account_check_empty.json": users("u1", imclient.CodeMissing),
	"v3.8.0/account_check_empty.json":       failed(imclient.ClassBadBatch, "2"),
	"account_check_mixed.json":              users("u1", "imported", "ghost", "not_imported", "imAdmin", "imported", "u2", "imported"),
	"account_check_nonadmin.json":           failed(imclient.ClassFatal, "1002"),
	"account_check_null.json":               failed(imclient.ClassBadBatch, "1001"),
	"admin_token_bad_secret.json":           failed(imclient.ClassFatal, "1002"),
	"admin_token_bad_user.json":             failed(imclient.ClassFatal, "1001"),
	"v3.8.0/admin_token_bad_user.json":      failed(imclient.ClassFatal, "1004"),
	"admin_token_no_opid.json":              failed(imclient.ClassFatal, "1001"),
	"admin_token_ok.json":                   users("imAdmin", "imported"),
	"get_users_status_online.json":          users("u1", `online {"ios":"online","web":"online"}`, "u2", `online {"android":"online"}`, "ghost", "offline {}"),
	"ms_all_gw_killed.json":                 users("u1", "offline {}", "u2", "offline {}", "u3", "offline {}"),
	"ms_auth_down_online.json":              failed(imclient.ClassTransient, "14"),
	"main-7848d7c/ms_auth_down_online.json": failed(imclient.ClassTransient, "500"),
	"ms_gw1_killed_0s.json":                 users("u1", `online {"ios":"online"}`, "u2", "offline {}", "u3", `online {"android":"online"}`),
	"ms_two_gateways.json":                  users("u1", `online {"ios":"online"}`, "u2", `online {"android":"online"}`, "u3", `online {"android":"online"}`),
	"v3.8.3-patch.16/ms_two_gateways.json":  users("u1", `online {"web":"online"}`, "u2", `online {"android":"online"}`, "u3", `online {"android":"online"}`),
	"ms_user_down_check.json":               failed(imclient.ClassTransient, "14"),
	"main-7848d7c/ms_user_down_check.json":  failed(imclient.ClassTransient, "500"),
	"online_background.json":                users("u3", `online {"android":"background"}`),
	"online_badjson.json":                   failed(imclient.ClassBadBatch, "500"),
	"online_empty.json":                     users("u1", imclient.CodeMissing),
	"online_garbage_token.json":             failed(imclient.ClassTransient, "1503"),
	"online_kicked_token.json":              failed(imclient.ClassTransient, "1506"),
	"online_mixed_offline.json":             users("u1", "offline {}", "ghost", "offline {}", "imAdmin", "offline {}"),
	"online_no_opid.json":                   failed(imclient.ClassBadBatch, "1001"),
	"online_no_token.json":                  failed(imclient.ClassBadBatch, "1001"),
	"online_nonadmin.json":                  failed(imclient.ClassFatal, "1002"),
	"online_u1_ios_web.json":                users("u1", `online {"ios":"online","web":"online"}`, "u2", `online {"android":"online"}`, "ghost", "offline {}"),
	"rate_limited_429.capture.json":         {class: imclient.ClassThrottled, code: "429", retryAfter: time.Second},
	"redis_down_online.json":                failed(imclient.ClassTransient, "500"),
	"token_badsig.json":                     failed(imclient.ClassTransient, "1505"),
	"token_expired.json":                    failed(imclient.ClassTransient, "1501"),
	"token_notexist.json":                   failed(imclient.ClassTransient, "1507"),
	// A release that does not look tokens up does not miss them.
	"v3.8.3-patch.16/token_notexist.json": users("u1", "offline {}"),
	"token_notyet.json":                   failed(imclient.ClassTransient, "1504"),
}

// TestFixtures returns the client every answer captured from real servers of three
// versions. A file without an expectation fails.
func TestFixtures(t *testing.T) {
	walked := 0
	for _, version := range []string{"main-7848d7c", "v3.8.0", "v3.8.3-patch.16"} {
		files, err := os.ReadDir(path.Join("testdata", version))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			walked++
			t.Run(version+"/"+file.Name(), func(t *testing.T) {
				want, ok := expected[version+"/"+file.Name()]
				if !ok {
					want, ok = expected[file.Name()]
				}
				if !ok {
					t.Fatal("no expectation for this file")
				}
				checkFixture(t, path.Join(version, file.Name()), want)
			})
		}
	}
	if walked != 81 {
		t.Errorf("%d fixtures, want 81", walked)
	}
}

// checkFixture serves the captured answer to the call that it belongs to.
func checkFixture(t *testing.T, file string, want expectation) {
	t.Helper()
	answer := fixture(t, file)
	answers := map[string][]http.HandlerFunc{online: times(2, answer), merged: times(2, answer), check: times(2, answer)}
	if strings.Contains(file, "admin_token") {
		answers = map[string][]http.HandlerFunc{
			newLogin: {answer},
			check:    {says(`{"errCode":0,"data":{"results":[{"userID":"imAdmin","accountStatus":1}]}}`)},
		}
	}
	s := newServer(t, answers)
	ask := askPresence
	if strings.Contains(file, "get_users_status") {
		ask = askStatus
	}
	if strings.Contains(file, "check") || strings.Contains(file, "admin_token") {
		ask = askAccounts
	}
	ids := []string{"u1"} // of answers that fail
	if want.users != nil {
		ids = nil
		for id := range want.users {
			ids = append(ids, id)
		}
	}
	got, err := ask(t, s.client(), ids)
	if want.users == nil {
		checkFailure(t, s, err, want)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.users, got); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
}

func checkFailure(t *testing.T, s *server, err error, want expectation) {
	t.Helper()
	e, ok := errors.AsType[*imclient.Error](err)
	if !ok {
		t.Fatalf("got %v, want a failure", err)
	}
	if e.Class != want.class || e.Code != want.code || e.RetryAfter != want.retryAfter {
		t.Errorf("%+v, want class %s, code %s, retry after %s", *e, want.class, want.code, want.retryAfter)
	}
	if e.OpID == "" || !strings.Contains(s.log.String(), e.OpID) {
		t.Errorf("operationID %q of the error is not in the log", e.OpID)
	}
	s.checkSecrets("the error", err.Error())
}

// askPresence returns each user's state and platforms, or code of rejection.
func askPresence(t *testing.T, c *Client, ids []string) (map[string]string, error) {
	t.Helper()
	return values(c.QueryPresence(t.Context(), ids))
}

// askStatus is askPresence of the other API.
func askStatus(t *testing.T, c *Client, ids []string) (map[string]string, error) {
	t.Helper()
	return values(c.QueryStatus(t.Context(), ids))
}

func values(answer presences, err error) (map[string]string, error) {
	got := map[string]string{}
	for _, o := range answer.Observed {
		got[o.UserID] = o.Value.State.String() + " " + o.Value.Platforms.String()
	}
	for _, r := range answer.Rejected {
		got[r.UserID] = r.Code
	}
	return got, err
}

// askAccounts returns each user's import status, or code of rejection.
func askAccounts(t *testing.T, c *Client, ids []string) (map[string]string, error) {
	t.Helper()
	answer, err := c.CheckAccounts(t.Context(), ids)
	got := map[string]string{}
	for _, o := range answer.Observed {
		got[o.UserID] = o.Value.String()
	}
	for _, r := range answer.Rejected {
		got[r.UserID] = r.Code
	}
	return got, err
}
