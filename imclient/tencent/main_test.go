package tencent

import (
	"bytes"
	"crypto/hmac"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testApp    = 1400000000
	testAdmin  = "admin&co" // needs escaping in a URL
	testSecret = "made-up-key"
)

// request is what the server was asked, after everything was checked that all
// requests have in common.
type request struct {
	Path, Body, sig string
}

// server answers the calls of one client in turn and checks each of them.
type server struct {
	t       *testing.T
	url     string
	log     syncBuffer // of the client
	opened  atomic.Int32
	mu      sync.Mutex
	answers []http.HandlerFunc
	got     []request
	randoms map[string]bool
}

// newServer starts a server that sends the answers in turn; a further call fails the test.
func newServer(t *testing.T, answers ...http.HandlerFunc) *server {
	t.Helper()
	s := &server{t: t, answers: answers, randoms: map[string]bool{}}
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

// client makes a client of the server.
func (s *server) client(change ...func(*Config)) *Client {
	s.t.Helper()
	c := Config{
		SDKAppID: testApp, Identifier: testAdmin, SecretKey: testSecret, BaseURL: s.url, Detail: true,
		Log: zerolog.New(&s.log).Level(zerolog.TraceLevel),
	}
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
	q := r.URL.Query()
	s.got = append(s.got, request{Path: r.Method + " " + r.URL.Path, Body: string(body), sig: q.Get("usersig")})
	s.checkQuery(r)
	var answer http.HandlerFunc
	if len(s.answers) > 0 {
		answer, s.answers = s.answers[0], s.answers[1:]
	}
	s.mu.Unlock()
	if answer == nil {
		s.t.Errorf("one call too many: %s %s", r.URL.Path, body)
		return
	}
	answer(w, r)
}

// checkQuery checks what every call must carry.
func (s *server) checkQuery(r *http.Request) {
	q := r.URL.Query()
	if len(q) != 5 || q.Get("sdkappid") != strconv.Itoa(testApp) || q.Get("identifier") != testAdmin || q.Get("contenttype") != "json" {
		s.t.Errorf("query %s", r.URL.RawQuery)
	}
	if _, err := strconv.ParseUint(q.Get("random"), 10, 32); err != nil || s.randoms[q.Get("random")] {
		s.t.Errorf("random %q is no fresh 32-bit number", q.Get("random"))
	}
	s.randoms[q.Get("random")] = true
	u := decode(s.t, q.Get("usersig"))
	if u.Identifier != testAdmin || u.SDKAppID != testApp || !hmac.Equal(u.Sig, u.sum(testSecret)) {
		s.t.Errorf("the signature is not for us: %+v", u)
	}
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		s.t.Errorf("content type %q", got)
	}
}

// checkSecrets fails when text holds the key or a signature that was used.
func (s *server) checkSecrets(what, text string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Contains(text, testSecret) {
		s.t.Errorf("the key is in %s: %s", what, text)
	}
	for _, r := range s.got {
		if strings.Contains(text, r.sig) {
			s.t.Errorf("a signature is in %s: %s", what, text)
		}
	}
}

// requests returns what was asked, without signatures.
func (s *server) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]request, len(s.got))
	for i, r := range s.got {
		all[i] = request{Path: r.Path, Body: r.Body}
	}
	return all
}

// says answers with HTTP 200 and the body.
func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
}

// fails answers that the call as a whole failed, in words that repeat secrets.
func fails(code int, more string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		info, err := json.Marshal("refused: " + r.URL.RawQuery + " key " + testSecret)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(w, `{"ActionStatus":"FAIL","ErrorInfo":%s,"ErrorCode":%d%s}`, info, code, more)
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

// ok wraps what a success says.
func ok(rest string) http.HandlerFunc {
	return says(`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,` + rest + `}`)
}

// clock is a time that a test sets.
type clock struct{ unixNano atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.unixNano.Store(time.Now().UnixNano())
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
