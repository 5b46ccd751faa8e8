package openim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"syncer/imclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testAdmin  = "imAdmin"
	testSecret = "made-up-secret"
	newLogin   = "/auth/get_admin_token"
	oldLogin   = "/auth/user_token"
	online     = "/user/get_users_online_status"
	merged     = "/user/get_users_status"
	check      = "/user/account_check"
)

// request is what the server was asked.
type request struct{ Path, Token, Body string }

// server answers each path's calls in turn and checks what all have in common.
// Logins without an answer of their own get tokens admin-token-1, -2, …
type server struct {
	t       *testing.T
	url     string
	log     syncBuffer // of the client
	opened  atomic.Int32
	mu      sync.Mutex
	answers map[string][]http.HandlerFunc
	got     []request
	opIDs   map[string]bool
	logins  int
}

func newServer(t *testing.T, answers map[string][]http.HandlerFunc) *server {
	t.Helper()
	s := &server{t: t, answers: answers, opIDs: map[string]bool{}}
	h := httptest.NewUnstartedServer(s)
	h.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.opened.Add(1)
		}
	}
	h.Start()
	s.url = h.URL
	t.Cleanup(func() {
		h.Close()
		s.checkSecrets("the log", s.log.String())
	})
	return s
}

func (s *server) client(change ...func(*Config)) *Client {
	s.t.Helper()
	c := Config{BaseURL: s.url, AdminUserID: testAdmin, Secret: testSecret, Log: zerolog.New(&s.log).Level(zerolog.TraceLevel)}
	for _, f := range change {
		f(&c)
	}
	client, err := New(c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	return client
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	s.got = append(s.got, request{Path: r.Method + " " + r.URL.Path, Token: r.Header.Get("token"), Body: string(body)})
	opID := r.Header.Get("operationID")
	if !strings.HasPrefix(opID, "syncer-") || len(opID) > 31 || s.opIDs[opID] {
		s.t.Errorf("operationID %q is not new, or too long", opID)
	}
	s.opIDs[opID] = true
	if r.URL.RawQuery != "" || r.Header.Get("Content-Type") != "application/json" {
		s.t.Errorf("query %q, content type %q", r.URL.RawQuery, r.Header.Get("Content-Type"))
	}
	answer := s.next(r.URL.Path)
	s.mu.Unlock()
	answer(w, r)
}

// next takes the next answer of a path.
func (s *server) next(path string) http.HandlerFunc {
	if left := s.answers[path]; len(left) > 0 {
		s.answers[path] = left[1:]
		return left[0]
	}
	if path == newLogin || path == oldLogin {
		s.logins++
		return says(fmt.Sprintf(`{"errCode":0,"data":{"token":"admin-token-%d","expireTimeSeconds":7776000}}`, s.logins))
	}
	s.t.Errorf("one call too many: %s", path)
	return answersWith(http.StatusInternalServerError, "")
}

// checkSecrets fails when text holds the secret or any token.
func (s *server) checkSecrets(what, text string) {
	s.t.Helper()
	for _, secret := range []string{testSecret, "admin-token", "SCRUBBED", "session-token", "conn-id"} {
		if strings.Contains(text, secret) {
			s.t.Errorf("%s is in %s: %s", secret, what, text)
		}
	}
}

func (s *server) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.got...)
}

// paths returns the paths asked, in order.
func (s *server) paths() []string {
	var paths []string
	for _, r := range s.requests() {
		paths = append(paths, strings.TrimPrefix(r.Path, "POST "))
	}
	return paths
}

// says answers with HTTP 200 and the body.
func says(body string) http.HandlerFunc { return answersWith(http.StatusOK, body) }

// fails answers with a code, and words that repeat what the call carried.
func fails(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"errCode":%d,"errMsg":"SomeError","errDlt":"refused, token=%s secret %s"}`, code, r.Header.Get("token"), testSecret)
	}
}

// answersWith answers with any HTTP status.
func answersWith(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// times repeats an answer.
func times(n int, answer http.HandlerFunc) (all []http.HandlerFunc) {
	for range n {
		all = append(all, answer)
	}
	return all
}

// fixture reads an answer captured from a real server; names of captures with status and
// headers end in .capture.json. Where the server repeated the refused token,
// the test's does so too.
func fixture(t *testing.T, path string) http.HandlerFunc {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(path, ".capture.json") {
		status := http.StatusOK
		if strings.HasSuffix(path, "online_badjson.json") {
			status = http.StatusBadRequest
		}
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, strings.ReplaceAll(string(body), "token=SCRUBBED.JWT", "token="+r.Header.Get("token")))
		}
	}
	var capture struct {
		Status  int
		Headers map[string]string
		Body    string
	}
	if err := json.Unmarshal(body, &capture); err != nil {
		t.Fatal(err)
	}
	var header []string
	for _, name := range []string{"Retry-After", "Content-Type"} {
		header = append(header, name, capture.Headers[name])
	}
	return answersWith(capture.Status, capture.Body, header...)
}

// ignoreTimes leaves the dates of answers to a test of their own.
func ignoreTimes[V comparable]() cmp.Option {
	return cmp.Options{cmpopts.IgnoreFields(imclient.Answer[V]{}, "AskedAt", "AnsweredAt"), cmpopts.EquateEmpty()}
}

// clock is a time that a test sets.
type clock struct{ unixNano atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.unixNano.Store(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time           { return time.Unix(0, c.unixNano.Load()).UTC() }
func (c *clock) advance(by time.Duration) { c.unixNano.Add(int64(by)) }

// syncBuffer is a buffer that several goroutines may write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
