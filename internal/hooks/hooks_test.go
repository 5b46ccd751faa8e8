package hooks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"syncer/imclient"
	"syncer/imclient/openim"
	"syncer/imclient/tencent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What must not appear in any log.
const (
	token  = "CANARY-HOOK-TOKEN"
	secret = "CANARY-HOOK-SECRET"
	client = "203.0.113.7"
	connID = "CANARY-CONN-ID"
)

var now = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// told is what the sinks received.
type told struct {
	mu  sync.Mutex
	all []string
}

func (t *told) sink(app string) func([]imclient.Hook, time.Time) {
	return func(hooks []imclient.Hook, arrived time.Time) {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, h := range hooks {
			t.all = append(t.all, fmt.Sprintf("%s %s %s %s %t %d", app, h.UserID, h.State, h.Platform, h.Logout, arrived.Sub(h.ToldAt).Milliseconds()))
		}
	}
}

func (t *told) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.all
	t.all = nil
	return all
}

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

// fixture is a receiver for an app of each provider, and one without a secret.
type fixture struct {
	Receiver
	told     told
	log      syncBuffer
	registry *prometheus.Registry
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{registry: prometheus.NewRegistry()}
	app := func(name, answer string, read func(imclient.HookRequest) ([]imclient.Hook, error)) App {
		return App{Name: name, Read: read, Answer: answer, Tell: f.told.sink(name)}
	}
	f.Receiver.Apps = []App{
		app("main", tencent.HookAnswer, tencent.Hooks{SDKAppID: 1400000001, Token: token}.Read),
		app("chat", openim.HookAnswer, openim.Hooks{Secret: secret}.Read),
		app("bare", openim.HookAnswer, openim.Hooks{}.Read),
	}
	f.Receiver.Now = func() time.Time { return now }
	f.Receiver.Metrics = NewMetrics(f.registry)
	f.Receiver.Log = zerolog.New(&f.log)
	t.Cleanup(func() {
		for _, s := range []string{token, secret, client, connID, "127.0.0.1", "user-1"} {
			if strings.Contains(f.log.String(), s) {
				t.Errorf("%s is in the log: %s", s, f.log.String())
			}
		}
	})
	return f
}

// tencentURL is the path and query of a hook as Tencent sends it.
func tencentURL(command string, changes ...string) string {
	at := strconv.FormatInt(now.Unix(), 10)
	sum := sha256.Sum256([]byte(token + at))
	q := url.Values{
		"SdkAppid": {"1400000001"}, "CallbackCommand": {command}, "contenttype": {"json"}, "ClientIP": {client},
		"OptPlatform": {"Web"}, "Sign": {hex.EncodeToString(sum[:])}, "RequestTime": {at},
	}
	for i := 0; i < len(changes); i += 2 {
		q.Set(changes[i], changes[i+1])
	}
	return "/hooks/main?" + q.Encode()
}

const (
	tencentBody = `{"CallbackCommand":"State.StateChange","EventTime":1796126399000,"Info":{"Action":"Disconnect","To_Account":"user-1","Reason":"LinkClose"}}`
	openIMBody  = `{"callbackCommand":"callbackAfterUserOnlineCommand","operationID":"p_1_1","platformID":2,"platform":"Android","userID":"user-2","seq":1796126399500,"isAppBackground":false,"connID":"` + connID + `"}`
)

func TestReceiver(t *testing.T) {
	f := newFixture(t)
	handler := f.Handler()
	const online = "/callbackAfterUserOnlineCommand"
	long := `{"a":"` + strings.Repeat("x", imclient.MaxHookBody) + `"}`
	for _, test := range []struct {
		name, method, url, body string
		status                  int
		answer                  string // "": whatever
		told                    []string
	}{
		{"Tencent", "POST", tencentURL("State.StateChange"), tencentBody, 200, tencent.HookAnswer, []string{"main user-1 offline web true 1000"}},
		{"Tencent, another callback", "POST", tencentURL("C2C.CallbackBeforeSendMsg"), "anything", 200, tencent.HookAnswer, nil},
		{"Tencent, another callback with a long body", "POST", tencentURL("Group.CallbackBeforeSendMsg"), long, 200, tencent.HookAnswer, nil},
		{"Tencent, wrong signature", "POST", tencentURL("State.StateChange", "Sign", "00"), tencentBody, 401, "", nil},
		{"Tencent, old", "POST", tencentURL("State.StateChange", "RequestTime", "1796126000"), tencentBody, 401, "", nil},
		{"Tencent, another app", "POST", tencentURL("State.StateChange", "SdkAppid", "5"), tencentBody, 401, "", nil},
		{"Tencent, too long", "POST", tencentURL("State.StateChange"), long, 400, "", nil},
		{"Tencent, not JSON", "POST", tencentURL("State.StateChange"), "user-1", 400, "", nil},
		{"Tencent, read", "GET", tencentURL("State.StateChange"), "", 404, "", nil},
		{"Tencent, slash", "POST", strings.Replace(tencentURL("State.StateChange"), "main", "main/", 1), tencentBody, 404, "", nil},
		{"OpenIM", "POST", "/hooks/chat/" + secret + online, openIMBody, 200, openim.HookAnswer, []string{"chat user-2 online android false 500"}},
		{"OpenIM before 3.5", "POST", "/hooks/chat/" + secret + "?command=callbackUserOnlineCommand", openIMBody, 200, openim.HookAnswer, []string{"chat user-2 online android false 500"}},
		{"OpenIM, register", "POST", "/hooks/chat/" + secret + "/callbackAfterUserRegisterCommand", `{"users":[{"userID":"user-1"}]}`, 200, openim.HookAnswer, nil},
		{"OpenIM, wrong secret", "POST", "/hooks/chat/CANARY-HOOK-SECRE" + online, openIMBody, 401, "", nil},
		{"OpenIM, no secret", "POST", "/hooks/chat" + online, openIMBody, 404, "", nil},
		{"OpenIM, below", "POST", "/hooks/chat/" + secret + online + "/x", openIMBody, 404, "", nil},
		{"OpenIM, two slashes", "POST", "/hooks/chat/" + secret + "/" + online, openIMBody, 404, "", nil},
		{"no secret configured", "POST", "/hooks/bare/x" + online, openIMBody, 401, "", nil},
		{"unknown app", "POST", "/hooks/other/" + secret + online, openIMBody, 404, "", nil},
		{"no app", "POST", "/hooks/", openIMBody, 404, "", nil},
		{"elsewhere", "POST", "/", openIMBody, 404, "", nil},
		{"upwards", "POST", "/x/../hooks/chat/" + secret + online, openIMBody, 404, "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := send(t, handler, test.method, test.url, test.body)
			if w.status != test.status || test.answer != "" && w.body != test.answer {
				t.Errorf("%d %q, want %d %q", w.status, w.body, test.status, test.answer)
			}
			if strings.Contains(w.body+fmt.Sprint(w.header), "CANARY") {
				t.Errorf("the answer repeats a secret: %v", w)
			}
			if got := f.told.take(); !cmp.Equal(got, test.told) {
				t.Errorf("told (-want +got):\n%s", cmp.Diff(test.told, got))
			}
		})
	}
	want := map[string]float64{
		"main accepted": 1, "main refused": 5, "main unknown_command": 2,
		"chat accepted": 2, "chat refused": 1, "chat unknown_command": 1,
		"bare accepted": 0, "bare refused": 1, "bare unknown_command": 0,
	}
	if diff := cmp.Diff(want, f.counted(t)); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	// Refused hooks are logged by app and reason, a few a minute of each app.
	lines := strings.Split(strings.TrimSpace(f.log.String()), "\n")
	if len(lines) != warningsAMinute+2 || !strings.Contains(lines[0], `"app":"main"`) || !strings.Contains(lines[0], "its signature is wrong") ||
		!strings.Contains(lines[4], `"app":"bare"`) || !strings.Contains(lines[4], "hook_secret_file") {
		t.Errorf("logged:\n%s", f.log.String())
	}
}

// counted returns the counters by app and result.
func (f *fixture) counted(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	counted := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		counted[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
	}
	return counted
}

// answered is an answer to a request.
type answered struct {
	status int
	body   string
	header http.Header
}

// send passes a request to the handler. It keeps the path as it is.
func send(t *testing.T, handler http.Handler, method, path, body string) answered {
	t.Helper()
	w := &recorder{header: http.Header{}, status: 200}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://receiver.example"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	handler.ServeHTTP(w, r)
	return answered{w.status, w.body.String(), w.header}
}

type recorder struct {
	header http.Header
	body   strings.Builder
	status int
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(p []byte) (int, error) { return w.body.Write(p) }

// serve starts the receiver; stop ends it and returns its error.
func (f *fixture) serve(t *testing.T) (address string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, l) }()
	return l.Addr().String(), func() error { cancel(); return <-served }
}

// TestServe_stop: hooks in flight are answered and told before Serve returns.
func TestServe_stop(t *testing.T) {
	f := newFixture(t)
	reached, release := make(chan struct{}), make(chan struct{})
	tell := f.Receiver.Apps[1].Tell
	f.Receiver.Apps[1].Tell = func(hooks []imclient.Hook, arrived time.Time) {
		close(reached)
		<-release
		tell(hooks, arrived)
	}
	address, stop := f.serve(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	status := make(chan int, 1)
	go func() {
		response, err := client.Post("http://"+address+"/hooks/chat/"+secret+"/callbackAfterUserOnlineCommand", "application/json", strings.NewReader(openIMBody))
		if err != nil {
			status <- 0
			return
		}
		response.Body.Close()
		status <- response.StatusCode
	}()
	<-reached
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // until the listener is closed
		conn, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		conn.Close()
	}
	close(release)
	if got := <-status; got != http.StatusOK {
		t.Errorf("the hook in flight was answered %d", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if got := f.told.take(); len(got) != 1 {
		t.Errorf("told %q", got)
	}
}

// TestServe_fails: a listener that breaks is an error.
func TestServe_fails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := newFixture(t).Serve(t.Context(), l); err == nil || !strings.HasPrefix(err.Error(), "receive hooks: ") {
		t.Errorf("%v", err)
	}
}

// TestServe_tls: renewed files take effect without a restart, broken ones do not; what the
// server logs holds no address.
func TestServe_tls(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certFile, keyFile, "first.example")
	var err error
	if f.Certificate, err = LoadCertificate(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	address, stop := f.serve(t)
	name := func() string {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test's own certificate
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	if got := name(); got != "first.example" {
		t.Errorf("certificate of %s", got)
	}
	writeCertificate(t, certFile, keyFile, "second.example")
	if err := f.Certificate.Load(); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "second.example" {
		t.Errorf("certificate of %s after its renewal", got)
	}
	if err := os.WriteFile(certFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Certificate.Load(); err == nil {
		t.Error("a broken file is read")
	}
	if got := name(); got != "second.example" {
		t.Errorf("certificate of %s after a broken file", got)
	}
	// A client without TLS gets nothing, and a line in the log.
	response, err := http.Post("http://"+address+tencentURL("State.StateChange"), "application/json", strings.NewReader(tencentBody))
	if err == nil {
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: %d %s", response.StatusCode, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(f.log.String(), "from a peer:") || len(f.told.take()) > 0 {
		t.Errorf("logged:\n%s", f.log.String())
	}
}

// BenchmarkReceive is one hook of OpenIM without its connection.
func BenchmarkReceive(b *testing.B) {
	f := newFixture(b)
	handler := f.Handler()
	b.ReportAllocs()
	for b.Loop() {
		r, _ := http.NewRequest(http.MethodPost, "http://receiver.example/hooks/chat/"+secret+"/callbackAfterUserOnlineCommand", strings.NewReader(openIMBody))
		handler.ServeHTTP(&recorder{header: http.Header{}}, r)
	}
}

// TestServe_limits: a request whose header or body never arrives, or whose header is too
// long, does not keep its connection.
func TestServe_limits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		l := &pipes{made: make(chan net.Conn), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- f.Serve(ctx, l) }()
		const head = "POST /hooks/chat/" + secret + "/callbackAfterUserOnlineCommand HTTP/1.1\r\nHost: receiver.example\r\n"
		for _, test := range []struct {
			sent  string
			after time.Duration
			want  string
		}{
			{head, 5 * time.Second, ""},
			{head + "Content-Length: 100\r\n\r\n{", 10 * time.Second, "HTTP/1.1 400 "},
			{head + "X: " + strings.Repeat("x", 32<<10), 0, "HTTP/1.1 431 "},
		} {
			conn := l.dial()
			begun := time.Now()
			go func() { _, _ = io.WriteString(conn, test.sent) }() // fails when it is refused
			answer, _ := io.ReadAll(conn)
			if took := time.Since(begun); !strings.HasPrefix(string(answer), test.want) || test.want == "" && len(answer) > 0 || test.after > 0 && took != test.after {
				t.Errorf("%.120q is answered with %q after %s, want %q after %s", test.sent, answer, took, test.want, test.after)
			}
			conn.Close()
		}
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

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
