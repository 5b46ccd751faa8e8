package tencent

import (
	"encoding/csv"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"syncer/imclient"
)

// documentedCodes reads the list of codes: code and class, in the list's words.
func documentedCodes(t testing.TB) map[int]string {
	t.Helper()
	file, err := os.Open("testdata/error_codes.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	documented := map[int]string{}
	for _, row := range rows[1:] {
		code, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatal(err)
		}
		documented[code] = row[1]
	}
	if len(documented) < 100 {
		t.Fatalf("only %d codes", len(documented))
	}
	return documented
}

// TestCodes asks a server that answers with each documented code in turn.
func TestCodes(t *testing.T) {
	documented := documentedCodes(t)
	if len(documented) != len(codes) {
		t.Errorf("%d codes in the table, %d documented", len(codes), len(documented))
	}
	for code, class := range documented {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			want := map[string]imclient.Class{
				"retry": imclient.ClassTransient, "retry_after_slower": imclient.ClassThrottled, "config_fatal": imclient.ClassFatal,
				"bad_request": imclient.ClassBadBatch, "per_user": imclient.ClassBadBatch, // of a batch of several
				"reauth": imclient.ClassFatal, // after a second refusal
			}[class]
			// The key of another app: a fresh signature is tried first.
			again := class == "reauth" || code == 70009
			answers := []http.HandlerFunc{fails(code, "")}
			if again {
				answers = append(answers, fails(code, ""))
			}
			for api, ask := range map[string]func(*Client) (int, error){
				apiQueryOnlineStatus: func(c *Client) (int, error) {
					a, err := c.QueryPresence(t.Context(), []string{"a", "b"})
					return a.Calls, err
				},
				apiAccountCheck: func(c *Client) (int, error) {
					a, err := c.CheckAccounts(t.Context(), []string{"a", "b"})
					return a.Calls, err
				},
			} {
				s := newServer(t, answers...)
				calls, err := ask(s.client())
				e, ok := errors.AsType[*imclient.Error](err)
				if !ok {
					t.Fatalf("got %v", err)
				}
				if e.Class != want || e.Code != strconv.Itoa(code) || e.API != api || e.Provider != imclient.ProviderTencent {
					t.Errorf("%s: %+v, want class %s", api, *e, want)
				}
				if calls != len(answers) {
					t.Errorf("%s: %d calls counted, want %d", api, calls, len(answers))
				}
				s.checkSecrets("the error", err.Error())
				checkAdvice(t, e)
			}
		})
	}
}

// checkAdvice checks that a fatal error names a setting or the console.
func checkAdvice(t *testing.T, e *imclient.Error) {
	t.Helper()
	if e.Class != imclient.ClassFatal {
		return
	}
	for _, place := range []string{"sdk_app_id", "identifier", "secret_key", "region", "base_url", "console"} {
		if strings.Contains(e.Text, place) {
			return
		}
	}
	t.Errorf("does not say what to fix: %s", e.Text)
}

func TestCodes_unknown(t *testing.T) {
	for _, code := range []int{1, 65432, -3} {
		s := newServer(t, says(`{"ActionStatus":"FAIL","ErrorInfo":"something new","ErrorCode":`+strconv.Itoa(code)+`}`))
		_, err := s.client().QueryPresence(t.Context(), []string{"a", "b"})
		if imclient.ClassOf(err) != imclient.ClassTransient || !strings.Contains(err.Error(), "code "+strconv.Itoa(code)+": something new") {
			t.Errorf("code %d: class %s: %v", code, imclient.ClassOf(err), err)
		}
	}
}

func TestCodes_pauses(t *testing.T) {
	for _, tc := range []struct {
		answer http.HandlerFunc
		want   time.Duration
	}{
		{fails(60028, ""), time.Hour},
		{fails(70050, ""), time.Minute},
		{fails(60007, ""), 0},
		{answersWith(429, `{"ActionStatus":"FAIL","ErrorCode":60018}`, "Retry-After", "9"), 9 * time.Second},
		{answersWith(429, `{"ActionStatus":"FAIL","ErrorCode":70050}`, "Retry-After", "9"), time.Minute},
		{answersWith(429, `slow down`, "Retry-After", "9"), 9 * time.Second},
	} {
		_, err := newServer(t, tc.answer).client().QueryPresence(t.Context(), []string{"a", "b"})
		e, ok := errors.AsType[*imclient.Error](err)
		if !ok || e.Class != imclient.ClassThrottled || e.RetryAfter != tc.want {
			t.Errorf("%v: want a throttled error for %s", err, tc.want)
		}
	}
}
