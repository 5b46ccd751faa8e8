// Package hooks is the daemon's HTTP server for the hooks of providers. It checks a
// request, passes the event to the sink of its app, and answers at once: it calls neither
// the database nor an API, because a provider may wait for the answer. OpenIM stalls its
// own presence updates behind a slow receiver.
package hooks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"syncer/imclient"
)

// App is an app whose hooks are received.
type App struct {
	Name string
	// Read returns the events of a request. See imclient.ErrHookPath and the errors after it
	// for what it fails with.
	Read func(imclient.HookRequest) ([]imclient.Hook, error)
	// Answer is the body of the answer to every hook that Read accepts.
	Answer string
	// Tell receives the events. It must not block.
	Tell func(hooks []imclient.Hook, arrived time.Time)
}

// Receiver answers POST /hooks/<app> and below. It must not be copied.
type Receiver struct {
	Apps []App
	// Now returns the time by the database's clock without a call to the database.
	Now     func() time.Time
	Metrics *Metrics
	// Certificate, if not nil, makes the server speak TLS.
	Certificate *Certificate
	// Log records refused hooks by app and reason, and trouble with connections. It holds
	// nothing of a request, and no address.
	Log zerolog.Logger
}

// prefix precedes the app's name in every path.
const prefix = "/hooks/"

// warningsAMinute bounds the log, for each app and for the server: anyone who reaches the
// listener can cause warnings.
const warningsAMinute = 3

func sampled(log zerolog.Logger) zerolog.Logger {
	return log.Sample(&zerolog.BurstSampler{Burst: warningsAMinute, Period: time.Minute})
}

// endpoint receives the hooks of one app.
type endpoint struct {
	App
	counts counts
	log    zerolog.Logger
	now    func() time.Time
}

// Handler returns the server's routes. Everything but a POST to an app's path is 404.
func (r *Receiver) Handler() http.Handler {
	endpoints := make(map[string]*endpoint, len(r.Apps))
	for _, app := range r.Apps {
		log := sampled(r.Log.With().Str("app", app.Name).Logger())
		endpoints[app.Name] = &endpoint{App: app, counts: r.Metrics.of(app.Name), log: log, now: r.Now}
	}
	// Not a ServeMux, which answers some paths with a redirect that repeats them.
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		path, ok := strings.CutPrefix(request.URL.Path, prefix)
		name, path, below := strings.Cut(path, "/")
		e := endpoints[name]
		if !ok || e == nil || below && path == "" || request.Method != http.MethodPost {
			fail(w, http.StatusNotFound)
			return
		}
		e.receive(w, request, path)
	})
}

// contentType is shared by all answers, which must not change it.
var contentType = []string{"application/json; charset=utf-8"}

// receive takes one hook.
func (e *endpoint) receive(w http.ResponseWriter, request *http.Request, path string) {
	arrived := e.now()
	hooks, err := e.Read(imclient.HookRequest{
		Path: path, Query: request.URL.Query(), Body: request.Body, Now: arrived,
	})
	switch {
	case errors.Is(err, imclient.ErrHookPath):
		fail(w, http.StatusNotFound)
		return
	case err != nil:
		e.counts.refused.Inc()
		e.log.Warn().Err(err).Msg("a hook was not accepted")
		status := http.StatusUnauthorized
		if errors.Is(err, imclient.ErrHookMalformed) {
			status = http.StatusBadRequest
		}
		fail(w, status)
		return
	case len(hooks) == 0:
		e.counts.unknown.Inc()
	default:
		e.counts.accepted.Inc()
		e.Tell(hooks, arrived)
	}
	w.Header()["Content-Type"] = contentType
	_, _ = io.WriteString(w, e.Answer)
}

// fail answers with a status and its words.
func fail(w http.ResponseWriter, status int) { http.Error(w, http.StatusText(status), status) }

// stopWithin limits the wait of a stop for hooks in flight, which take milliseconds.
const stopWithin = 2 * time.Second

// Serve answers on the listener until ctx ends and the hooks in flight are answered. It
// closes the listener.
func (r *Receiver) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           r.Handler(),
		ErrorLog:          log.New(warnings(sampled(r.Log)), "", 0),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second, // longer, so that a late body is answered
		IdleTimeout:       2 * time.Minute,  // providers keep connections
		MaxHeaderBytes:    16 << 10,
	}
	if r.Certificate != nil {
		server.TLSConfig = &tls.Config{GetCertificate: r.Certificate.get, MinVersion: tls.VersionTLS12}
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	var err error
	if r.Certificate != nil {
		err = server.ServeTLS(l, "", "")
	} else {
		err = server.Serve(l)
	}
	if stop() {
		return fmt.Errorf("receive hooks: %w", err)
	}
	<-stopped
	return nil
}

// warnings logs each line of an http.Server as a warning, without the peer's address.
type warnings zerolog.Logger

// peer matches the address in the lines of an http.Server: "TLS handshake error from
// 192.0.2.1:4711: EOF", "panic serving 192.0.2.1:4711: …".
var peer = regexp.MustCompile(`\b(from|serving) \S+:`)

func (w warnings) Write(line []byte) (int, error) {
	logger := zerolog.Logger(w)
	text := peer.ReplaceAllString(strings.TrimSpace(string(line)), "$1 a peer:")
	logger.Warn().Str("error", text).Msg("the receiver of hooks has trouble")
	return len(line), nil
}

// Certificate is the server's certificate. Renewed files take effect with Load.
type Certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// LoadCertificate reads a certificate, with those of its intermediate CAs, and its key.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	return c, c.Load()
}

// Load reads the files again. If it fails, the previous certificate stays in force.
func (c *Certificate) Load() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read the certificate of hooks: %w", err)
	}
	c.current.Store(&pair)
	return nil
}

func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// Metrics counts hooks.
type Metrics struct{ hooks *prometheus.CounterVec }

// NewMetrics makes the counters and registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{hooks: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "syncer_hooks_total",
		Help: "Hooks that this process received, by result: accepted, refused (not the provider's, or not readable), unknown_command (answered, but not about a user's presence).",
	}, []string{"app", "result"})}
	registry.MustRegister(m.hooks)
	return m
}

// counts are the counters of one app.
type counts struct{ accepted, refused, unknown prometheus.Counter }

// of returns an app's counters, at zero: Prometheus cannot see the first increment of a
// counter that it creates.
func (m *Metrics) of(app string) counts {
	return counts{
		accepted: m.hooks.WithLabelValues(app, "accepted"),
		refused:  m.hooks.WithLabelValues(app, "refused"),
		unknown:  m.hooks.WithLabelValues(app, "unknown_command"),
	}
}
