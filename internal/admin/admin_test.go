package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ready(context.Context) error { return nil }

// metrics has one counter.
func metrics() prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "answers_total", Help: "Answers."}, []string{"app"})
	registry.MustRegister(answers)
	answers.WithLabelValues("main").Add(42)
	return registry
}

func TestHandler(t *testing.T) {
	notReady := func(context.Context) error { return errors.New("run: syncer migrate up") }
	for _, test := range []struct {
		name, method, path string
		ready              func(context.Context) error
		status             int
		body               string
	}{
		{"alive", http.MethodGet, "/healthz", ready, http.StatusOK, "ok\n"},
		{"alive for a monitor that only wants the head", http.MethodHead, "/healthz", ready, http.StatusOK, ""},
		{"alive though not ready", http.MethodGet, "/healthz", notReady, http.StatusOK, "ok\n"},
		{"ready", http.MethodGet, "/readyz", ready, http.StatusOK, "ok\n"},
		{"not ready", http.MethodGet, "/readyz", notReady, http.StatusServiceUnavailable, "run: syncer migrate up\n"},
		{"nothing to post", http.MethodPost, "/healthz", ready, http.StatusMethodNotAllowed, "Method Not Allowed\n"},
		{"metrics", http.MethodGet, "/metrics", notReady, http.StatusOK, "# HELP answers_total Answers.\n# TYPE answers_total counter\nanswers_total{app=\"main\"} 42\n"},
		{"nothing below", http.MethodGet, "/healthz/x", ready, http.StatusNotFound, "404 page not found\n"},
		{"nothing else", http.MethodGet, "/", ready, http.StatusNotFound, "404 page not found\n"},
		{"no profiles unless they are wanted", http.MethodGet, "/debug/pprof/", ready, http.StatusNotFound, "404 page not found\n"},
		{"no profiles by name either", http.MethodGet, "/debug/pprof/heap", ready, http.StatusNotFound, "404 page not found\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer((&Server{Ready: test.ready, Metrics: metrics()}).Handler())
			defer server.Close()
			request, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := server.Client().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != test.status || string(body) != test.body {
				t.Errorf("%s %s: %d %q, want %d %q", test.method, test.path, response.StatusCode, body, test.status, test.body)
			}
		})
	}
}

// TestHandler_profiles: what go tool pprof reads is compressed protocol buffers.
func TestHandler_profiles(t *testing.T) {
	server := httptest.NewServer((&Server{Ready: ready, Metrics: metrics(), Pprof: true}).Handler())
	defer server.Close()
	for _, path := range []string{"/debug/pprof/heap", "/debug/pprof/profile?seconds=1"} {
		response, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), "\x1f\x8b") {
			t.Errorf("GET %s: %d, %.40q", path, response.StatusCode, body)
		}
	}
}

// TestHandler_host holds that without a token the server answers only to names of
// its own, by which no page of another name can read it.
func TestHandler_host(t *testing.T) {
	for _, test := range []struct {
		name, token, listen, host string
		status                    int
	}{
		{"its address", "", "127.0.0.1:9464", "", http.StatusOK},
		{"localhost", "", "127.0.0.1:9464", "LocalHost:9464", http.StatusOK},
		{"loopback", "", "0.0.0.0:9464", "[::1]:9464", http.StatusOK},
		{"the name that it listens on", "", "syncer.internal:9464", "syncer.internal:9464", http.StatusOK},
		{"a name that was pointed here", "", "127.0.0.1:9464", "evil.example:9464", http.StatusMisdirectedRequest},
		{"such a name with a port alone", "", ":9464", "evil.example", http.StatusMisdirectedRequest},
		{"an address of another machine", "", "0.0.0.0:9464", "192.0.2.1:9464", http.StatusMisdirectedRequest},
		{"any name with a token", "secret", "0.0.0.0:9464", "host-a:9464", http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer((&Server{Ready: ready, Metrics: metrics(), Token: test.token, Listen: test.listen}).Handler())
			defer server.Close()
			for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				request.Host = test.host
				request.Header.Set("Authorization", "Bearer "+test.token)
				response, err := server.Client().Do(request)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || response.StatusCode != test.status {
					t.Errorf("GET %s as %q: %d %q, want %d", path, test.host, response.StatusCode, body, test.status)
				}
			}
		})
	}
}

// TestReadyPatience: a database that hangs is one that is not ready.
func TestReadyPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Metrics: metrics(), Ready: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		begun := time.Now()
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/readyz", nil))
		if took := time.Since(begun); w.Code != http.StatusServiceUnavailable || took != readyTimeout {
			t.Errorf("answered %d after %s, want %d after %s", w.Code, took, http.StatusServiceUnavailable, readyTimeout)
		}
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestServe: it answers until the context ends, and then lets go of everybody.
func TestServe(t *testing.T) {
	asked := make(chan struct{})
	s := &Server{Metrics: metrics(), Ready: func(ctx context.Context) error {
		close(asked)
		<-ctx.Done() // the server's stop, well before readyTimeout
		return ctx.Err()
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	hanging := make(chan error, 1)
	go func() {
		response, err := client.Get("http://" + l.Addr().String() + "/readyz")
		if err == nil {
			response.Body.Close()
		}
		hanging <- err
	}()
	<-asked
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := <-hanging; err == nil {
		t.Error("the call in flight was answered after the stop")
	}
	if _, err := client.Get("http://" + l.Addr().String() + "/healthz"); err == nil {
		t.Error("it still answers after the stop")
	}
}

// TestServeFails: a listener that breaks is an error that says what broke.
func TestServeFails(t *testing.T) {
	l := listen(t)
	l.Close()
	err := (&Server{Ready: ready, Metrics: metrics()}).Serve(t.Context(), l)
	if err == nil || !strings.HasPrefix(err.Error(), "serve health, readiness and metrics: ") || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve on a closed listener: %v", err)
	}
}

// TestHandler_token: with a token strangers learn whether the daemon lives and is
// ready, and nothing else.
func TestHandler_token(t *testing.T) {
	notReady := func(context.Context) error { return errors.New("database db.internal is away") }
	server := httptest.NewServer((&Server{Ready: notReady, Metrics: metrics(), Pprof: true, Token: "s3cret"}).Handler())
	defer server.Close()
	const needed = "the token of [http] is needed: Authorization: Bearer …\n"
	for _, test := range []struct {
		path, authorization string
		status              int
		body                string // its beginning
	}{
		{"/healthz", "", http.StatusOK, "ok\n"},
		{"/readyz", "", http.StatusServiceUnavailable, "not ready\n"},
		{"/readyz", "Bearer s3cret", http.StatusServiceUnavailable, "database db.internal is away\n"},
		{"/metrics", "", http.StatusUnauthorized, needed},
		{"/metrics", "Bearer", http.StatusUnauthorized, needed},
		{"/metrics", "Bearer s3cre", http.StatusUnauthorized, needed},
		{"/metrics", "Bearer s3crets", http.StatusUnauthorized, needed},
		{"/metrics", "Basic s3cret", http.StatusUnauthorized, needed},
		{"/metrics", "s3cret", http.StatusUnauthorized, needed},
		{"/metrics?token=s3cret", "", http.StatusUnauthorized, needed},
		{"/metrics", "Bearer s3cret", http.StatusOK, "# HELP answers_total"},
		{"/metrics", "bearer s3cret", http.StatusOK, "# HELP answers_total"},
		{"/debug/pprof/", "", http.StatusUnauthorized, needed},
		{"/debug/pprof/heap", "", http.StatusUnauthorized, needed},
		{"/debug/pprof/profile", "", http.StatusUnauthorized, needed},
		{"/debug/pprof/trace", "", http.StatusUnauthorized, needed},
		{"/debug/pprof/symbol", "", http.StatusUnauthorized, needed},
		{"/debug/pprof/heap", "Bearer s3cret", http.StatusOK, "\x1f\x8b"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.authorization != "" {
			request.Header.Set("Authorization", test.authorization)
		}
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != test.status || !strings.HasPrefix(string(body), test.body) {
			t.Errorf("GET %s with %q: %d %.60q, want %d %q", test.path, test.authorization, response.StatusCode, body, test.status, test.body)
		}
	}
}

// TestServe_limits: a request whose header is too long is refused, and one whose
// header never arrives does not keep its connection.
func TestServe_limits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{made: make(chan net.Conn), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- (&Server{Ready: ready, Metrics: metrics()}).Serve(ctx, l) }()

		slow := l.dial()
		begun := time.Now()
		if _, err := io.WriteString(slow, "GET /healthz HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		if answer, _ := io.ReadAll(slow); strings.Contains(string(answer), "200 OK") || time.Since(begun) != 5*time.Second {
			t.Errorf("half a head is answered with %q after %s, want the end after 5s", answer, time.Since(begun))
		}

		long := l.dial()
		go func() {
			_, _ = io.WriteString(long, "GET /healthz HTTP/1.1\r\nX: "+strings.Repeat("x", 32<<10)) // fails when it is refused
		}()
		if answer, _ := io.ReadAll(long); !strings.HasPrefix(string(answer), "HTTP/1.1 431 ") {
			t.Errorf("a head of 32 KiB is answered with %q, want 431", answer)
		}
		long.Close()
		slow.Close()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// pipes is a listener within the process, whose waiting the test's clock knows.
type pipes struct {
	made   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.made <- server
	return client
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.made:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// lines is a log.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// TestServe_panic: a panic of a handler is logged, a few times a
// minute, and the server goes on.
func TestServe_panic(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := make(lines, 2*warningsAMinute)
	s := &Server{Metrics: metrics(), Log: zerolog.New(log), Ready: func(context.Context) error { panic("a mistake") }}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	const times = 2 * warningsAMinute
	for range times {
		if response, err := client.Get("http://" + l.Addr().String() + "/readyz"); err == nil {
			response.Body.Close()
			t.Errorf("a handler that panics answers %d", response.StatusCode)
		}
	}
	response, err := client.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if len(log) != warningsAMinute {
		t.Errorf("%d panics are told of in %d lines", times, len(log))
	}
	close(log)
	for line := range log {
		if !strings.HasPrefix(line, `{"level":"warn","error":"http: panic serving `) || !strings.Contains(line, `a mistake\ngoroutine `) {
			t.Errorf("a panic is told of as %s", line)
		}
	}
}
