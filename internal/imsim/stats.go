package imsim

import (
	"maps"
	"net/http"
	"sync"
	"time"
)

// Stats is what the server saw since it started or was reset.
type Stats struct {
	// Connections counts opened connections. It needs Serve or ConnState.
	Connections int `json:"connections"`
	// NotFound counts calls with an unknown path or method.
	NotFound int `json:"not_found"`
	// APIs are the figures of each API path that was called.
	APIs map[string]APIStats `json:"apis"`
	// Hooks are the figures of the senders of hooks, by path.
	Hooks map[string]HookStats `json:"hooks,omitempty"`
}

// HookStats are the figures of one sender of hooks.
type HookStats struct {
	Taken   int `json:"taken"`   // answered with HTTP 200
	Refused int `json:"refused"` // answered otherwise
	Failed  int `json:"failed"`  // not answered
}

// APIStats are the figures of one API path. They include calls ended by a fault or
// limit.
type APIStats struct {
	Calls int `json:"calls"`
	// IDs counts the user ids of all calls, MaxIDs the most in one call.
	IDs    int `json:"ids"`
	MaxIDs int `json:"max_ids"`
	// DuplicateCalls counts calls with a repeated id.
	DuplicateCalls int `json:"duplicate_calls"`
	// RepeatedNonces counts calls without a random or operationID, or with one of the
	// last few thousand calls.
	RepeatedNonces int `json:"repeated_nonces"`
	// Unauthorised counts calls refused for signature or token, RateLimited those
	// refused for their rate.
	Unauthorised int `json:"unauthorised"`
	RateLimited  int `json:"rate_limited"`
	// Failed counts all error answers, including those two, but not answers spoilt by
	// a fault.
	Failed int `json:"failed"`
	// MaxPerSecond is the most calls that arrived within one second.
	MaxPerSecond int `json:"max_per_second"`
}

// maxNonces bounds each of the two generations of stored nonces. Tencent's have 32
// bits, so more would collide by chance.
const maxNonces = 4096

// counters collects Stats.
type counters struct {
	now func() time.Time

	mu    sync.Mutex
	stats Stats
	apis  map[string]*apiCounters
	hooks map[string]HookStats
}

type apiCounters struct {
	APIStats
	arrived    window
	nonces     map[string]struct{}
	olderNonce map[string]struct{}
}

func newCounters(now func() time.Time) *counters {
	return &counters{now: now, apis: make(map[string]*apiCounters), hooks: make(map[string]HookStats)}
}

// arrive counts a call and returns its arrival time.
func (c *counters) arrive(path, nonce string, ids []string) time.Time {
	duplicate := hasDuplicate(ids)
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.apis[path]
	if a == nil {
		a = &apiCounters{nonces: make(map[string]struct{})}
		c.apis[path] = a
	}
	at := c.now()
	a.arrived.slide(at)
	a.arrived.add(at)
	a.MaxPerSecond = max(a.MaxPerSecond, a.arrived.slide(at))
	a.Calls++
	a.IDs += len(ids)
	a.MaxIDs = max(a.MaxIDs, len(ids))
	if duplicate {
		a.DuplicateCalls++
	}
	if a.seen(nonce) {
		a.RepeatedNonces++
	}
	return at
}

// seen stores a nonce and reports whether it was empty or stored before.
func (a *apiCounters) seen(nonce string) bool {
	_, now := a.nonces[nonce]
	_, before := a.olderNonce[nonce]
	if len(a.nonces) >= maxNonces {
		a.nonces, a.olderNonce = make(map[string]struct{}), a.nonces
	}
	a.nonces[nonce] = struct{}{}
	return now || before || nonce == ""
}

// refused counts an error answer.
func (c *counters) refused(path string, why refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.apis[path]
	if a == nil { // a reset came between
		return
	}
	a.Failed++
	switch why {
	case unauthorised:
		a.Unauthorised++
	case rateLimited:
		a.RateLimited++
	}
}

func (c *counters) notFound() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.NotFound++
}

// hooked counts a hook by the status of its answer; 0: there was none.
func (c *counters) hooked(path string, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hooks[path]
	switch status {
	case 0:
		h.Failed++
	case http.StatusOK:
		h.Taken++
	default:
		h.Refused++
	}
	c.hooks[path] = h
}

func (c *counters) connected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Connections++
}

func (c *counters) snapshot() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.APIs = make(map[string]APIStats, len(c.apis))
	for path, a := range c.apis {
		s.APIs[path] = a.APIStats
	}
	if len(c.hooks) > 0 {
		s.Hooks = maps.Clone(c.hooks)
	}
	return s
}

func (c *counters) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats = Stats{}
	clear(c.apis)
	clear(c.hooks)
}

var idSets = sync.Pool{New: func() any { return make(map[string]struct{}, 512) }}

func hasDuplicate(ids []string) bool {
	if len(ids) < 2 {
		return false
	}
	set := idSets.Get().(map[string]struct{})
	for _, id := range ids {
		set[id] = struct{}{}
	}
	duplicate := len(set) < len(ids)
	clear(set)
	if len(ids) <= 4096 { // a huge map stays slow to clear
		idSets.Put(set)
	}
	return duplicate
}

// Total returns the sums of all APIs' figures, and the largest of the maxima.
func (s Stats) Total() APIStats {
	var t APIStats
	for a := range maps.Values(s.APIs) {
		t.Calls += a.Calls
		t.IDs += a.IDs
		t.DuplicateCalls += a.DuplicateCalls
		t.RepeatedNonces += a.RepeatedNonces
		t.Unauthorised += a.Unauthorised
		t.RateLimited += a.RateLimited
		t.Failed += a.Failed
		t.MaxIDs = max(t.MaxIDs, a.MaxIDs)
		t.MaxPerSecond = max(t.MaxPerSecond, a.MaxPerSecond)
	}
	return t
}
