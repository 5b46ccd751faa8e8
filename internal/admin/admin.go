// Package admin is the daemon's HTTP server for operators: health, readiness, metrics
// and profiles. cmd/syncer starts it; jobs and repo supply the metrics.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

// Server answers GET /healthz (200 while the process lives), GET /readyz (200 if
// Ready returns nil, else 503 with the reason) and GET /metrics for Prometheus. With
// Pprof it also answers GET /debug/pprof/ as go tool pprof expects.
type Server struct {
	Ready   func(ctx context.Context) error
	Metrics prometheus.Gatherer
	Pprof   bool
	// Token, if not "", must be sent as "Authorization: Bearer …". Without it a
	// client gets only /healthz and /readyz, and /readyz omits the reason: service
	// managers and load balancers can seldom send a token.
	Token string
	// Listen is the configured address, as host:port. Without a token, the server
	// answers only requests whose Host is that host, a loopback name or an address of
	// this machine. Otherwise a web page could point its own name at this machine and
	// read the answers in a local browser.
	Listen string
	// Log records handlers that panic and connections that cannot be accepted.
	Log zerolog.Logger
}

// readyTimeout bounds one check of the database.
const readyTimeout = 3 * time.Second

// maxScrapes bounds concurrent scrapes: each takes a database connection.
const maxScrapes = 4

// Handler returns the server's routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := s.Ready(ctx); err != nil {
			reason := "not ready"
			if s.trusts(r) {
				reason = err.Error()
			}
			http.Error(w, reason, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", s.trusted(promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})))
	if s.Pprof {
		mux.Handle("GET /debug/pprof/", s.trusted(http.HandlerFunc(pprof.Index))) // serves heap, goroutine and the like, by name
		mux.Handle("GET /debug/pprof/profile", s.trusted(http.HandlerFunc(pprof.Profile)))
		mux.Handle("GET /debug/pprof/trace", s.trusted(http.HandlerFunc(pprof.Trace)))
		mux.Handle("GET /debug/pprof/symbol", s.trusted(http.HandlerFunc(pprof.Symbol)))
	}
	if s.Token != "" { // a page under a foreign name does not have it
		return mux
	}
	return OwnHost(s.Listen, "[http] token", mux)
}

// OwnHost refuses requests to h whose Host is a foreign name. address is the configured
// one; setting names the token that would make this check superfluous.
func OwnHost(address, setting string, h http.Handler) http.Handler {
	listen, _, _ := net.SplitHostPort(address)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostOf(r); !isOwn(host, listen, r) {
			http.Error(w, "this server is not asked by the name of the Host header; use its address, or set "+setting, http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// hostOf returns the host of the Host header, without port and brackets.
func hostOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	return strings.Trim(host, "[]")
}

// isOwn reports whether host names this machine: listen, a loopback name, or the
// address at which the request arrived.
func isOwn(host, listen string, r *http.Request) bool {
	if strings.EqualFold(host, "localhost") || host != "" && strings.EqualFold(host, listen) {
		return true
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return false
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ip.IsLoopback() || local != nil && ip.Equal(local.IP)
}

// trusted refuses requests without the token.
func (s *Server) trusted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.trusts(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "the token of [http] is needed: Authorization: Bearer …", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// trusts reports whether the request has the token, if there is one. It compares
// digests, so that the time it takes reveals neither the token nor its length.
func (s *Server) trusts(r *http.Request) bool {
	if s.Token == "" {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	want, got := sha256.Sum256([]byte(s.Token)), sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// warningsAMinute bounds the log: without a free descriptor the server would log a
// line a second.
const warningsAMinute = 3

// warnings logs each line of an http.Server as a warning.
type warnings struct {
	log zerolog.Logger
	msg string
}

// Warnings returns a writer that logs each line of an http.Server as a warning msg, at
// most a few a minute.
func Warnings(log zerolog.Logger, msg string) io.Writer {
	return warnings{log.Sample(&zerolog.BurstSampler{Burst: warningsAMinute, Period: time.Minute}), msg}
}

func (w warnings) Write(line []byte) (int, error) {
	w.log.Warn().Str("error", strings.TrimSpace(string(line))).Msg(w.msg)
	return len(line), nil
}

// Serve answers on the listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ErrorLog:          log.New(Warnings(s.Log, "the server of health, readiness and metrics has trouble"), "", 0),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health, readiness and metrics: %w", err)
	}
	return nil
}
