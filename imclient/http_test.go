package imclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// querySecret stands for the signature in the query of every request here; it
// must be in no error.
const querySecret = "eJw1zUsLgkAUBeDsecret"

// newTestHTTP makes plumbing with the given timeout.
func newTestHTTP(t *testing.T, timeout time.Duration) *HTTP {
	t.Helper()
	h := NewHTTP(HTTPConfig{Provider: ProviderTencent, Timeout: timeout, Now: time.Now})
	t.Cleanup(h.Close)
	return h
}

// post makes a call that carries the secret.
func post(ctx context.Context, h *HTTP, base string) (Reply, error) {
	return h.post(ctx, httpRequest{API: "test", URL: base + "/v4/x?usersig=" + querySecret, Body: []byte(`{}`)})
}

// hang returns when the client has gone, which a server only notices once the
// body is read.
func hang(r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		<-r.Context().Done()
	}
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func TestPost(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got := []string{r.Method, r.URL.Path, r.URL.Query().Get("usersig"), r.Header.Get("Content-Type"), r.Header.Get("Token"), string(body)}
		if diff := cmp.Diff([]string{"POST", "/v4/x", querySecret, "application/json", "t", "{}"}, got); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Date", noon.Format(http.TimeFormat))
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, `{"short":true,"stout":1}`)
	})
	sent := 0
	var members []string
	before := time.Now()
	reply, err := newTestHTTP(t, time.Minute).post(t.Context(), httpRequest{
		API: "test", URL: base + "/v4/x?usersig=" + querySecret, Body: []byte("{}"), Sent: &sent,
		Authorise: func(_ context.Context, r *http.Request) error { r.Header.Set("Token", "t"); return nil },
		Answer:    func(d *Decoder) { d.Object(func(name []byte) { members = append(members, string(name)); d.Bool() }) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if reply.AskedAt.Before(before) || reply.AnsweredAt.Before(reply.AskedAt) || reply.AnsweredAt.After(time.Now()) {
		t.Errorf("dated %s to %s", reply.AskedAt, reply.AnsweredAt)
	}
	reply.AskedAt, reply.AnsweredAt = time.Time{}, time.Time{}
	want := Reply{Status: http.StatusTeapot, Bytes: 24, WrongType: true, RetryAfter: 7 * time.Second, Date: noon}
	if diff := cmp.Diff(want, reply); diff != "" {
		t.Errorf("reply (-want +got):\n%s", diff)
	}
	if sent != 1 {
		t.Errorf("counted %d requests, want 1", sent)
	}
	if diff := cmp.Diff([]string{"short", "stout"}, members); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

// TestPost_misbehaving asks servers that do everything wrong.
func TestPost_misbehaving(t *testing.T) {
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		class   Class
		text    string
	}{
		"no answer": {
			handler: func(_ http.ResponseWriter, r *http.Request) { hang(r) },
			class:   ClassTransient, text: "no answer within the timeout of 200ms",
		},
		"an answer that stops half way": {
			handler: func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					t.Error(err)
				}
				fmt.Fprint(w, `{"errCode"`)
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			},
			class: ClassTransient, text: "no answer within the timeout of 200ms",
		},
		"connection closed": {
			handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			class:   ClassTransient, text: "send the request",
		},
		"shorter than announced": {
			handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				fmt.Fprint(w, "{}")
			},
			class: ClassTransient, text: "read the answer",
		},
		"redirect": {
			handler: func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://login.example/sso?back="+r.URL.String(), http.StatusTemporaryRedirect)
			},
			class: ClassFatal, text: "redirects (HTTP 307) to https://login.example; set base_url",
		},
		"redirect to nowhere": {
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "http://[bad?"+r.URL.RawQuery)
				w.WriteHeader(http.StatusFound)
			},
			class: ClassTransient, text: "send the request",
		},
		"redirect to a name without end": {
			handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "https://"+strings.Repeat("long.", 1000)+"example/")
				w.WriteHeader(http.StatusFound)
			},
			class: ClassFatal, text: "long.lo…; set base_url",
		},
		"redirect without a target": {
			handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusFound) },
			class:   ClassFatal, text: "to another address",
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := serve(t, tc.handler)
			_, err := post(t.Context(), newTestHTTP(t, 200*time.Millisecond), base)
			checkError(t, err, tc.class, tc.text)
		})
	}
}

// checkError checks class and text of err, and that no secret is anywhere in it.
func checkError(t *testing.T, err error, class Class, text string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want an *Error", err)
	}
	if e.Class != class || !strings.Contains(e.Error(), text) {
		t.Errorf("class %s: %q\nwant %s with %q", e.Class, e, class, text)
	}
	if e.Provider != ProviderTencent || e.API != "test" {
		t.Errorf("does not say what was called: %+v", e)
	}
	if IsContext(err) {
		t.Errorf("%v would be taken for the end of the caller's context", err)
	}
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		if strings.Contains(fmt.Sprintf("%v %+v", cause, cause), querySecret) {
			t.Errorf("the signature is in %T: %v", cause, cause)
		}
	}
}

// TestPost_faults: what is not an answer of the API is recognised, and of what has
// no end only the beginning is read.
func TestPost_faults(t *testing.T) {
	endless := func(w http.ResponseWriter, first, again string) {
		_, err := io.WriteString(w, first)
		for again = strings.Repeat(again, 1<<10); err == nil; {
			_, err = io.WriteString(w, again)
		}
	}
	for name, tc := range map[string]struct {
		status  int
		answer  func(w http.ResponseWriter)
		fault   string
		most    int64 // bytes read
		dialled int32 // connections of two calls; 0: any number
	}{
		"a page":             {502, func(w http.ResponseWriter) { fmt.Fprint(w, "<html>", strings.Repeat("x", 20000)) }, "the answer (20006 bytes) is cut off or no reply", maxValue, 1},
		"a page without end": {503, func(w http.ResponseWriter) { endless(w, "<html>", "x") }, "is cut off or no reply", maxValue, 0},
		"nothing":            {200, func(http.ResponseWriter) {}, "the answer (0 bytes) is cut off or no reply", 0, 1},
		"half":               {200, func(w http.ResponseWriter) { fmt.Fprint(w, `{"code":0,"list":[`) }, "the answer (18 bytes) is cut off", 18, 1},
		"a member twice":     {200, func(w http.ResponseWriter) { fmt.Fprint(w, `{"list":[{"id":1}],"list":[]}`) }, "two members of one name", 29, 0},
		"a text without end": {200, func(w http.ResponseWriter) { endless(w, `{"padding":"`, "x") }, "longer than", 3 * maxValue, 0},
		"a list without end": {200, func(w http.ResponseWriter) { endless(w, `{"list":[`, "1,") }, "longer than 266144 bytes", answerSlack + 4001, 0},
		"strangers":          {200, func(w http.ResponseWriter) { endless(w, `{"users":[`, "{},") }, "far more users than the 4 asked about", maxValue, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var dialled atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				tc.answer(w)
			}))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					dialled.Add(1)
				}
			}
			server.Start()
			t.Cleanup(server.Close)
			h := newTestHTTP(t, time.Minute)
			whole := true
			for range 2 {
				reply, err := h.post(t.Context(), httpRequest{API: "test", URL: server.URL, Users: 4, BytesPerUser: 1000, Answer: func(d *Decoder) {
					d.Object(func(name []byte) {
						if string(name) == "users" {
							d.Users(4, d.Skip)
						} else {
							d.Skip()
						}
					})
					whole = d.end()
				}})
				if err != nil {
					t.Fatal(err)
				}
				if whole || reply.Status != tc.status || !strings.Contains(reply.Fault, tc.fault) || reply.Bytes > tc.most {
					t.Errorf("whole %t: %+v, want %q after at most %d bytes", whole, reply, tc.fault, tc.most)
				}
			}
			if n := dialled.Load(); tc.dialled > 0 && n != tc.dialled {
				t.Errorf("%d connections, want %d", n, tc.dialled)
			}
		})
	}
}

// TestPost_hugeHeader: the header of an answer is bounded, too.
func TestPost_hugeHeader(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", strings.Repeat("9", 1<<20))
		fmt.Fprint(w, "{}")
	})
	_, err := post(t.Context(), newTestHTTP(t, time.Minute), base)
	checkError(t, err, ClassTransient, "response headers exceeded")
}

// TestPost_redirectWithoutEnd: a redirect is one whatever its body.
func TestPost_redirectWithoutEnd(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(http.StatusFound)
		for err := error(nil); err == nil; {
			_, err = w.Write(make([]byte, 1<<16))
		}
	})
	_, err := post(t.Context(), newTestHTTP(t, time.Minute), base)
	checkError(t, err, ClassFatal, "redirects (HTTP 302) to https://elsewhere.example")
}

func TestPost_unreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = post(t.Context(), newTestHTTP(t, time.Minute), base)
	checkError(t, err, ClassTransient, "connection refused")
}

func TestPost_notHTTP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
			fmt.Fprint(conn, "SSH-2.0-OpenSSH_9.9\r\n")
		}
	}()
	_, err = post(t.Context(), newTestHTTP(t, time.Minute), "http://"+listener.Addr().String())
	checkError(t, err, ClassTransient, "malformed HTTP response")
	<-done
}

func TestPost_contextEnds(t *testing.T) {
	arrived := make(chan struct{}, 1)
	base := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		hang(r)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := post(ctx, newTestHTTP(t, time.Minute), base); err != context.Canceled {
		t.Errorf("got %v, want the context's own error", err)
	}
}

func TestPost_gate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := NewGate(&fakeStore{interval: time.Second}, time.Now)
		if err := gate.Throttled(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		h := NewHTTP(HTTPConfig{Provider: ProviderTencent, Timeout: time.Second, Now: time.Now, Transport: refuseAll{t}})
		sent := 0
		_, err := h.post(t.Context(), httpRequest{API: "test", Gate: gate, URL: "http://x/", Sent: &sent})
		checkError(t, err, ClassThrottled, "tencent test: calls are put off for long: the provider asked for a pause, or the database's clock was set back")
		if sent != 0 {
			t.Errorf("counted %d requests, none was sent", sent)
		}
	})
}

// refuseAll is a transport that must not be used.
type refuseAll struct{ t *testing.T }

func (r refuseAll) RoundTrip(*http.Request) (*http.Response, error) {
	r.t.Error("a request was sent")
	return nil, errors.New("refused")
}

func TestPost_reusesConnections(t *testing.T) {
	const workers, each = 8, 20
	var opened atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	h := newTestHTTP(t, time.Minute)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range each {
				if _, err := post(t.Context(), h, server.URL); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	// Each worker may have dialled once more while another's connection came free.
	if n := opened.Load(); n > 2*workers {
		t.Errorf("%d calls opened %d connections", workers*each, n)
	}
}

func TestPost_boundsCallsInFlight(t *testing.T) {
	var now, most atomic.Int32
	release := make(chan struct{})
	var once sync.Once
	base := serve(t, func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if n == maxInFlight {
			once.Do(func() { close(release) }) // the limit is reached, and never exceeded
		}
		<-release
		now.Add(-1)
	})
	h := newTestHTTP(t, time.Minute)
	var all sync.WaitGroup
	for range 2 * maxInFlight {
		all.Go(func() {
			if _, err := post(t.Context(), h, base); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := most.Load(); n != maxInFlight {
		t.Errorf("%d calls at once, want %d", n, maxInFlight)
	}
}

func TestStatusError(t *testing.T) {
	h := newTestHTTP(t, time.Second)
	for status, want := range map[int]Class{
		429: ClassThrottled, 500: ClassTransient, 502: ClassTransient, 503: ClassTransient, 504: ClassTransient,
		408: ClassTransient, 425: ClassTransient, 413: ClassBadBatch,
		204: ClassFatal, 400: ClassFatal, 401: ClassFatal, 403: ClassFatal, 404: ClassFatal, 405: ClassFatal,
	} {
		err := h.statusError("test", Reply{Status: status, RetryAfter: time.Second})
		checkError(t, err, want, fmt.Sprintf("HTTP %d %s", status, http.StatusText(status)))
		if e, ok := errors.AsType[*Error](err); !ok || e.RetryAfter != time.Second || e.HTTPStatus != status {
			t.Errorf("HTTP %d: %+v", status, e)
		}
	}
	if err := h.statusError("test", Reply{Status: 200}); err != nil {
		t.Errorf("HTTP 200 is %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"":                     0,
		"1":                    time.Second,
		" 30 ":                 30 * time.Second,
		"-5":                   0,
		"999999999":            time.Hour,
		"-18446743000":         0, // times 10^9 it is positive again, in 64 bits
		"99999999999999999999": 0,
		"soon":                 0,
		noon.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		noon.Add(-time.Hour).Format(http.TimeFormat):       0,
		noon.AddDate(3, 0, 0).Format(http.TimeFormat):      time.Hour,
	} {
		if got := retryAfter(value, noon); got != want {
			t.Errorf("Retry-After %q is %s, want %s", value, got, want)
		}
	}
}

func TestCheckBaseURL(t *testing.T) {
	for _, good := range []string{"https://console.tim.qq.com", "http://127.0.0.1:10002/", "https://proxy.example/im"} {
		if err := CheckBaseURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"":                            "missing",
		"console.tim.qq.com":          "https://host",
		"ftp://host":                  "https://host",
		"https://":                    "https://host",
		"https://user:hidden@host":    "neither user",
		"https://host/?hidden=hidden": "nor fragment",
		"https://host/#hidden":        "nor fragment",
		"https://ho st/hidden":        "https://host",
		"127.0.0.1:10002":             "https://host",
	} {
		err := CheckBaseURL(bad)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: %v, want %q and nothing of the address", bad, err, want)
		}
	}
}

// TestPost_slowConnections: a call that had to wait for a new connection takes a
// new call time. Else the first calls, held up by the dialling, would arrive
// together with later ones on connections that are open already. All of it, server and
// connections included, runs on a clock of its own, so that the limit holds exactly.
func TestPost_slowConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, calls, callers = 50, 100, 40
		var mu sync.Mutex
		var arrived []time.Time
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			arrived = append(arrived, time.Now())
			_, _ = w.Write([]byte("{}"))
		})}
		listener := &pipes{connections: make(chan net.Conn), closed: make(chan struct{})}
		go func() { _ = server.Serve(listener) }()
		slow := func(ctx context.Context, _, _ string) (net.Conn, error) {
			time.Sleep(300 * time.Millisecond)
			return listener.dial(ctx)
		}
		transport := &http.Transport{DialContext: slow, MaxIdleConnsPerHost: callers}
		h := NewHTTP(HTTPConfig{Provider: ProviderTencent, Timeout: 10 * time.Second, Now: time.Now, Transport: transport})
		gate := NewGate(&fakeStore{interval: (time.Second + MaxMargin) / rate}, time.Now)
		var all errgroup.Group
		all.SetLimit(callers)
		for range calls {
			all.Go(func() error {
				_, err := h.post(t.Context(), httpRequest{API: "test", Gate: gate, URL: "http://api.invalid"})
				return err
			})
		}
		if err := all.Wait(); err != nil {
			t.Error(err)
		}
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if len(arrived) != calls {
			t.Errorf("%d calls arrived, want %d", len(arrived), calls)
		}
		for i, last := range arrived {
			within := 0
			for _, at := range arrived[:i+1] {
				if last.Sub(at) < time.Second {
					within++
				}
			}
			if within > rate {
				t.Fatalf("%d calls arrived within a second, want %d at most", within, rate)
			}
		}
	})
}

// pipes is a listener whose connections are pipes, which block as synctest sees it.
type pipes struct {
	connections chan net.Conn
	closed      chan struct{}
	once        sync.Once
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.connections <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.connections:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestPost_refusedByProxy: a proxy that refuses the connection to an API is fatal if that
// lasts, and an error holds neither its words nor the proxy's password.
func TestPost_refusedByProxy(t *testing.T) {
	for status, want := range map[int]Class{
		http.StatusProxyAuthRequired: ClassFatal, http.StatusForbidden: ClassFatal,
		http.StatusBadGateway: ClassTransient, http.StatusTooManyRequests: ClassTransient,
	} {
		proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodConnect || r.Host != "api.invalid:443" || r.Header.Get("Proxy-Authorization") == "" {
				t.Errorf("the proxy got %s %s", r.Method, r.Host)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, "words of the proxy")
		})
		address, err := url.Parse(strings.Replace(proxy, "//", "//user:CANARY-PASSWORD@", 1))
		if err != nil {
			t.Fatal(err)
		}
		h := NewHTTP(HTTPConfig{Provider: ProviderTencent, Timeout: time.Minute, Now: time.Now, Proxy: address})
		t.Cleanup(h.Close)
		_, err = post(t.Context(), h, "https://api.invalid")
		if ClassOf(err) != want || !strings.Contains(err.Error(), fmt.Sprintf("the proxy answers with HTTP %d", status)) {
			t.Errorf("HTTP %d of the proxy: %s: %v", status, ClassOf(err), err)
		}
		if strings.Contains(err.Error(), "check the app's proxy") != (want == ClassFatal) {
			t.Errorf("HTTP %d of the proxy: the advice is wrong: %v", status, err)
		}
		for _, secret := range []string{querySecret, "CANARY", "words"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("HTTP %d of the proxy: %q is in: %v", status, secret, err)
			}
		}
	}
}
