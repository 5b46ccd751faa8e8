// Package web serves the live pages and the read API: what syncer knows, from Postgres
// alone, so that no request costs a call to an IM backend. It only reads. cmd/syncer
// starts it; repo/reports has its statements.
package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/internal/admin"
	"syncer/internal/pg"
	"syncer/repo/reports"
)

//go:embed assets
var assets embed.FS

// Config configures a Server.
type Config struct {
	// DB is a pool of its own, with read-only sessions.
	DB *pg.DB
	// Location is the zone in which pages show times.
	Location *time.Location
	// Token, if not "", is the password of Basic authentication.
	Token string
	// Listen is the configured address, as in admin.Server.
	Listen string
	// UserPages serves pages and answers about single users.
	UserPages bool
	// Jobs are the scheduled jobs; nil if they are not known.
	Jobs []Job
	// Limits are the configured calls per second; empty if they are not known.
	Limits map[API]float64
	// Meaning returns what the code of a failure means, "" if that is unknown.
	Meaning func(provider imclient.Provider, code string) string
	Version string
	Metrics *Metrics
	Log     zerolog.Logger
}

// Job is a scheduled job.
type Job struct {
	Name  string
	Kind  imclient.Kind
	App   string // "": every app
	Ticks interface{ Next(time.Time) time.Time }
}

// API is the API of a kind of an app.
type API struct {
	App  string
	Kind imclient.Kind
}

// Server serves pages and API. It does not write.
type Server struct {
	Config
	readings *readings
	apps     *readings // what the API has to know of the apps
	lookups  *lookups
	auditKey []byte         // of the hashes of user ids in the log
	failures zerolog.Logger // limits repeated warnings

	looksMu sync.Mutex
	looks   map[string]time.Time // at users' pages, when they were logged
}

// New returns a server.
func New(c Config) *Server {
	s := &Server{Config: c, auditKey: make([]byte, 32), looks: map[string]time.Time{}}
	_, _ = rand.Read(s.auditKey) // never fails
	s.readings = newReadings(c.Metrics, c.Log)
	s.apps = newReadings(nil, c.Log)
	s.lookups = &lookups{read: func(ctx context.Context, app reports.Observed, users []string) ([]reports.PresenceRow, error) {
		return reports.Presence(ctx, c.DB, app, users)
	}}
	s.failures = c.Log.Sample(&zerolog.BurstSampler{Burst: 3, Period: time.Minute})
	return s
}

// policy permits only what this server serves.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Handler returns the server's routes. All of them are GET and HEAD.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(route string, h http.HandlerFunc) {
		mux.Handle("GET "+route, s.counted(strings.TrimSuffix(route, "{$}"), h))
	}
	handle("/{$}", s.overviewPage)
	handle("/app/{app}", s.appPage)
	handle("/run/{id}", s.runPage)
	handle("/failures", s.failuresPage)
	handle("/user", s.userPage)
	handle("/user/{id...}", s.userPage)
	handle("/v1/presence", s.answer(s.presence))
	handle("/v1/online", s.answer(s.online))
	handle("/v1/history", s.answer(s.history))
	handle("/openapi.json", serveOpenAPI)
	for _, file := range []string{"style.css", "live.js"} {
		handle("/assets/"+file, func(w http.ResponseWriter, r *http.Request) { serveAsset(w, r, file) })
	}
	mux.Handle("/", s.counted("other", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			s.refuse(w, r, http.StatusMethodNotAllowed, "This server only answers GET and HEAD.")
			return
		}
		s.refuse(w, r, http.StatusNotFound, "There is no such page.")
	}))
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		if !s.admits(r) {
			header.Set("WWW-Authenticate", `Basic realm="syncer", charset="UTF-8"`)
			s.refuse(w, r, http.StatusUnauthorized, "Give the token of [web] as the password, with any user name.")
			return
		}
		mux.ServeHTTP(w, r)
	})
	if s.Token == "" {
		h = admin.OwnHost(s.Listen, "[web] token_file", h)
	}
	return h
}

// admits reports whether the request has the token, if there is one. It compares
// digests, so that the time it takes reveals neither the token nor its length.
func (s *Server) admits(r *http.Request) bool {
	if s.Token == "" {
		return true
	}
	_, password, ok := r.BasicAuth()
	want, got := sha256.Sum256([]byte(s.Token)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && ok
}

// refuse answers with an error: a problem document below /v1, else a page.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, detail string) {
	if strings.HasPrefix(r.URL.Path, "/v1/") || r.URL.Query().Get("format") == "json" {
		writeProblem(w, status, detail)
		return
	}
	s.render(w, r, status, "error.html", page{Title: http.StatusText(status), Data: detail})
}

// Serve answers on the listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ErrorLog:          log.New(admin.Warnings(s.Log, "the server of pages and API has trouble"), "", 0),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10, // 500 users in a query
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve pages and API: %w", err)
	}
	return nil
}
