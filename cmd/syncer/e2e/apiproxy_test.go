package e2e

import (
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// webProxy is an HTTP proxy. It knows where each host is, and keeps what it was asked.
type webProxy struct {
	url   string
	hosts map[string]string // address of each host, with port

	mu    sync.Mutex
	asked map[string]bool // method and host of the requests
}

func newWebProxy(t *testing.T, hosts map[string]string) *webProxy {
	t.Helper()
	p := &webProxy{hosts: hosts, asked: map[string]bool{}}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Host = hosts[r.In.Host] },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked[r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization")] = true
		p.mu.Unlock()
		if r.Method != http.MethodConnect {
			forward.ServeHTTP(w, r)
			return
		}
		p.tunnel(t, w, r.Host)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// tunnel connects the client with a host.
func (p *webProxy) tunnel(t *testing.T, w http.ResponseWriter, host string) {
	server, err := net.Dial("tcp", p.hosts[host])
	if err != nil {
		t.Error(err)
		return
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		t.Error(err)
	}
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // ends when either end closes
		to.Close()
		from.Close()
	}
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
}

func (p *webProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.asked))
}

// TestProxy: calls and traces go through a proxy only if a setting names it. The
// environment names none: with allow_http it would be given the server's secret.
func TestProxy(t *testing.T) {
	t.Parallel()
	c := newCollector(t, false)
	w := newWorld(t, worldOptions{users: 300, config: noJobs})
	behind, err := url.Parse(w.simURL)
	if err != nil {
		t.Fatal(err)
	}
	withTLS := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(behind))
	withTLS.Config.ErrorLog = log.New(io.Discard, "", 0)
	withTLS.StartTLS()
	t.Cleanup(withTLS.Close)
	w.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: withTLS.Certificate().Raw})))
	// The test's certificate is that of example.com; the other hosts exist nowhere.
	p := newWebProxy(t, map[string]string{
		"im.invalid:10002": behind.Host, "example.com:443": withTLS.Listener.Addr().String(), "collector.invalid": strings.TrimPrefix(c.url, "http://"),
	})
	named := strings.Replace(p.url, "//", "//user:CANARY-PASSWORD@", 1)
	env := []string{"HTTP_PROXY=" + named, "HTTPS_PROXY=" + named, "http_proxy=" + named, "https_proxy=" + named, "ALL_PROXY=" + named,
		"SYNCER_APPS_CHAT_OPENIM_BASE_URL=http://im.invalid:10002", "SYNCER_APPS_CHAT_OPENIM_ALLOW_HTTP=true",
		"SYNCER_APPS_MAIN_TENCENT_BASE_URL=https://example.com", "SYNCER_APPS_MAIN_TENCENT_CA_FILE=ca.pem",
		"SYNCER_TRACES_ENDPOINT=http://collector.invalid", "SYNCER_TRACES_ALLOW_HTTP=true"}
	w.run(exitDone, append(env, "migrate", "up")...)
	stdout, _ := w.run(exitFailed, append(env, "config", "check", "--connect")...)
	wantText(t, stdout, "FAILED  app chat", "FAILED  app main", "FAILED  traces")
	if asked := p.requests(); len(asked) > 0 {
		t.Errorf("the proxy of the environment was asked %q", asked)
	}
	env = append(env, "SYNCER_APPS_CHAT_PROXY="+named, "SYNCER_APPS_MAIN_PROXY="+named, "SYNCER_TRACES_PROXY="+named)
	stdout, _ = w.run(exitDone, append(env, "config", "check", "--connect")...)
	wantText(t, stdout, "app chat: calls go through the proxy "+p.url, "app main: calls go through the proxy "+p.url, "traces: sent through the proxy "+p.url,
		"ok      app main: tencent API", "ok      app chat: openim API", "ok      traces")
	w.run(exitPartial, append(env, "backfill", "--job", "presence")...)
	w.wantSQL("596", `SELECT count(*) FROM syncer.presence_snapshot`)
	const user = " Basic dXNlcjpDQU5BUlktUEFTU1dPUkQ="
	want := []string{"CONNECT example.com:443" + user, "POST collector.invalid" + user, "POST im.invalid:10002" + user}
	if diff := cmp.Diff(want, p.requests()); diff != "" {
		t.Errorf("asked of the proxy (-want +got):\n%s", diff)
	}
}
