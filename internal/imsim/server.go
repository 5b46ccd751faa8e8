package imsim

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Server simulates the providers. It is an http.Handler, safe for concurrent use.
type Server struct {
	now      func() time.Time
	started  time.Time
	speed    float64
	users    *Fixed
	rounds   *Rounds // the population of POST /_sim/round; may be nil
	apis     map[string]*api
	tencent  *tencent // may be nil
	openIM   *openIM  // may be nil
	faults   *faults
	counters *counters
	record   *record // may be nil
	hooks    []*hookSender
	control  http.Handler
}

// New returns a server. The configuration must be valid.
func New(c Config) *Server {
	s := &Server{now: c.Now, speed: c.Speed, apis: make(map[string]*api), faults: newFaults()}
	if s.now == nil {
		s.now = time.Now
	}
	if s.speed == 0 {
		s.speed = 1
	}
	s.started = s.now()
	s.counters = newCounters(s.now)
	s.rounds, _ = c.Population.(*Rounds)
	s.users = NewFixed(c.Population)
	if c.Record {
		s.record = newRecord()
	}
	var apis []*api
	if c.Tencent != nil {
		s.tencent = newTencent(s, *c.Tencent)
		apis = append(apis, s.tencent.apis()...)
		if c.Tencent.HookURL != "" {
			s.hooks = append(s.hooks, newHookSender(s, PathTencentHooks, s.tencent))
		}
	}
	if c.OpenIM != nil {
		s.openIM = newOpenIM(s, *c.OpenIM)
		apis = append(apis, s.openIM.apis()...)
		if c.OpenIM.HookURL != "" {
			s.hooks = append(s.hooks, newHookSender(s, PathOpenIMHooks, s.openIM))
		}
	}
	for _, a := range apis {
		s.apis[a.path] = a
	}
	s.control = s.controlHandler()
	return s
}

// Users returns the overlay with which single users are set.
func (s *Server) Users() *Fixed { return s.users }

// AddFault adds a fault from now on, and returns its id.
func (s *Server) AddFault(f Fault) (id int, err error) {
	return s.faults.add(f, s.populationTime(s.now()))
}

// Faults returns the faults that were not cleared, including used-up ones.
func (s *Server) Faults() []FaultState { return s.faults.list() }

// ClearFault ends one fault, releases the calls that hang in it, and reports whether
// it existed.
func (s *Server) ClearFault(id int) bool { return id > 0 && s.faults.clear(id) > 0 }

// ClearFaults ends all faults; see ClearFault.
func (s *Server) ClearFaults() { s.faults.clear(0) }

// RevokeSignatures invalidates all Tencent signatures seen so far (70052). Clients
// need one with a later TLS.time, in whole seconds.
func (s *Server) RevokeSignatures() {
	if s.tencent != nil {
		s.tencent.revoke()
	}
}

// KickTokens ends all OpenIM tokens (1506).
func (s *Server) KickTokens() {
	if s.openIM != nil {
		s.openIM.tokens.kick()
	}
}

// ForgetTokens removes all tokens from the OpenIM server (1507), as a flush of its
// Redis does; OpenIM383 does not notice.
func (s *Server) ForgetTokens() {
	if s.openIM != nil {
		s.openIM.tokens.forget()
	}
}

// IssueToken returns an OpenIM token for any user, valid for ttl; a negative ttl
// makes it expired. OpenIM must be simulated.
func (s *Server) IssueToken(userID string, ttl time.Duration) string {
	return s.openIM.tokens.issue(userID, 1, ttl, s.now())
}

// Stats returns the figures so far.
func (s *Server) Stats() Stats { return s.counters.snapshot() }

// Served returns the distinct values served about a user, in order, if the server
// records. Errors are not values.
func (s *Server) Served(kind Kind, userID string) []Value {
	if s.record == nil {
		return nil
	}
	return s.record.of(kind, userID)
}

// Reset clears faults, figures and recorded values. Users, round, signatures and
// tokens remain.
func (s *Server) Reset() {
	s.ClearFaults()
	s.counters.reset()
	if s.record != nil {
		s.record.reset()
	}
}

// populationTime returns the population's time at an instant of the clock.
func (s *Server) populationTime(at time.Time) time.Time {
	return s.started.Add(time.Duration(float64(at.Sub(s.started)) * s.speed))
}

// note keeps what an answer says about a user until it is sent.
func (s *Server) note(c *call, userID string, v servedValue) {
	if s.record != nil {
		c.served = append(c.served, servedUser{userID, v})
	}
}

// maxBody bounds the body of a call.
const maxBody = 32 << 20

var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 64<<10); return &b }}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, controlPrefix) {
		s.control.ServeHTTP(w, r)
		return
	}
	a := s.apis[r.URL.Path]
	if a == nil || a.backend == backend(s.openIM) && r.Method != http.MethodPost {
		s.notFound(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away, or sends without end
	}
	c := &call{api: a, http: r, body: body}
	c.request, c.bad = a.parse(body)
	c.arrived = s.counters.arrive(a.path, a.backend.nonce(r), c.ids)
	s.hookedBy(a.kind, c.ids)
	c.hits = s.faults.take(a, c.ids)
	if interrupt(w, c) {
		return
	}
	room := bodies.Get().(*[]byte)
	defer bodies.Put(room)
	answer, f := s.respond((*room)[:0], c)
	if f != nil {
		s.counters.refused(a.path, f.why)
		answer = a.backend.failed((*room)[:0], f)
		c.served = nil
	}
	*room = answer[:0]
	s.send(w, c, answer, f)
}

// hookedBy begins to send the hooks about the users of a call to a presence API.
func (s *Server) hookedBy(kind Kind, ids []string) {
	for _, sender := range s.hooks {
		if kind == TencentPresence && sender.path == PathTencentHooks || kind == OpenIMPresence && sender.path == PathOpenIMHooks {
			sender.watch(ids)
		}
	}
}

// notFound answers for an unknown path as each provider does.
func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.counters.notFound()
	if s.tencent != nil && strings.HasPrefix(r.URL.Path, "/v4/") {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(s.tencent.failed(nil, s.tencent.coded(60009, "the requested resource does not exist")))
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, "404 page not found")
}

// ConnState counts connections. Set it as http.Server.ConnState.
func (s *Server) ConnState(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		s.counters.connected()
	}
}

// Serve serves on a listener, and sends hooks, until ctx ends, which also ends calls that
// are delayed or hang. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ConnState:         s.ConnState,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute, // longer than clients keep theirs
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	following, unfollow := context.WithCancel(ctx)
	var hooks sync.WaitGroup
	hooks.Go(func() { s.followHooks(following) })
	defer hooks.Wait()
	defer unfollow()
	// No WriteTimeout: a fault may delay an answer for as long as it likes.
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l)
	if stop() {
		return fmt.Errorf("serve the simulator: %w", err)
	}
	<-stopped
	return nil
}
