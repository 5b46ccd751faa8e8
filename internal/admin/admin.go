// Package admin is the daemon's HTTP server for those who run it: is it alive,
// is it ready, and its metrics.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
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

// Server answers GET /healthz (200 while the process lives) and GET /readyz
// (200 when Ready says so, else 503 with the reason), and GET /metrics for
// Prometheus; with Pprof also GET /debug/pprof/ as go tool pprof wants it.
type Server struct {
	Ready   func(ctx context.Context) error
	Metrics prometheus.Gatherer
	Pprof   bool
	// Token, if not "", is asked for as "Authorization: Bearer …". Without it there
	// are only /healthz and /readyz, and the latter keeps its reason to itself:
	// what restarts and balances is seldom able to bring a token.
	Token string
	// Listen is the configured address, as host:port. Without a token, only requests
	// whose Host is that host, a loopback name or an address of this machine are
	// answered: a page in a browser here could otherwise read the answers under a
	// name that it has pointed at this machine.
	Listen string
	// Log gets what the server has to say: handlers that panic, connections that
	// cannot be accepted.
	Log zerolog.Logger
}

// readyTimeout bounds one look at the database.
const readyTimeout = 3 * time.Second

// maxScrapes bounds how many ask for metrics at once: each takes a connection to
// the database.
const maxScrapes = 4

// Handler gives the server's routes.
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
	return s.meant(mux)
}

// meant refuses requests that came here by a foreign name, unless there is a token,
// which the page of such a name does not have.
func (s *Server) meant(h http.Handler) http.Handler {
	if s.Token != "" {
		return h
	}
	listen, _, _ := net.SplitHostPort(s.Listen)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := hostOf(r); !isOwn(host, listen, r) {
			http.Error(w, "this server is not asked by the name of the Host header; use its address, or set [http] token", http.StatusMisdirectedRequest)
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

// trusted lets only those through who bring the token.
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

// trusts reports whether the request brings the token, if there is one. It
// compares digests, so that the time it takes tells nothing of the token, its
// length neither.
func (s *Server) trusts(r *http.Request) bool {
	if s.Token == "" {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	want, got := sha256.Sum256([]byte(s.Token)), sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// warningsAMinute bounds what the server says: without a free descriptor it would be
// a line a second.
const warningsAMinute = 3

// warnings makes warnings of a server's lines.
type warnings zerolog.Logger

func (w warnings) Write(line []byte) (int, error) {
	logger := zerolog.Logger(w)
	logger.Warn().Str("error", strings.TrimSpace(string(line))).Msg("the server of health, readiness and metrics has trouble")
	return len(line), nil
}

// Serve answers on the listener until the context ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ErrorLog:          log.New(warnings(s.Log.Sample(&zerolog.BurstSampler{Burst: warningsAMinute, Period: time.Minute})), "", 0),
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
