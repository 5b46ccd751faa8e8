package imsim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// FaultKind is how a call fails.
type FaultKind string

// The kinds. In brackets, the fields of Fault that they read.
const (
	// Faults of the network and of what stands between; the call is not looked at.
	FaultStatus   FaultKind = "status"   // an HTTP status with a body [Status, Body, RetryAfter, Echo]
	FaultHTML     FaultKind = "html"     // a page where JSON should be [Status, default 200; Echo]
	FaultEmpty    FaultKind = "empty"    // HTTP 200 without a body
	FaultHuge     FaultKind = "huge"     // a body without end [Size, default 64 MiB]
	FaultBomb     FaultKind = "bomb"     // a few kB of gzip that become a list of empty users [Size, default 16 MiB]
	FaultRedirect FaultKind = "redirect" // HTTP 302 [Body: where to]
	FaultHang     FaultKind = "hang"     // no answer until the client leaves or the fault is cleared
	FaultReset    FaultKind = "reset"    // the connection is reset
	FaultClose    FaultKind = "close"    // the connection is closed without an answer

	// Faults of an answer that is otherwise the right one.
	FaultDelay       FaultKind = "delay"        // [Delay]
	FaultDrip        FaultKind = "drip"         // byte by byte [Delay between two, default 100 ms]
	FaultTruncate    FaultKind = "truncate"     // half of the body, then the connection is closed
	FaultContentType FaultKind = "content_type" // text/html
	FaultWrongTypes  FaultKind = "wrong_types"  // valid JSON with strings for numbers, objects for arrays
	FaultDrop        FaultKind = "drop"         // ids are missing from the answer [IDs, default the first asked]
	FaultRepeat      FaultKind = "repeat"       // ids are answered twice [IDs, default the first asked]
	FaultUnasked     FaultKind = "unasked"      // ids are answered that were not asked for [IDs]
	FaultOffline     FaultKind = "offline"      // users look offline, with success [IDs, default all]; with Times 1, one bad call
	FaultFlip        FaultKind = "flip"         // of several connected devices a random half is shown, as OpenIM does with two gateways; get_users_status shows all

	// Errors that the backend itself answers.
	FaultCode     FaultKind = "code"      // a provider's code [Code, Text, Echo]
	FaultNotAdmin FaultKind = "not_admin" // the caller is no admin any more
	FaultAuthLag  FaultKind = "auth_lag"  // a token is not known for so long after its login, as by a second auth instance whose cache lags behind [Delay, default 50 ms]; OpenIM only
	FaultAuthOld  FaultKind = "auth_old"  // a token that was accepted before is accepted on after it was kicked, lost or superseded, as by a second auth instance that has it in its cache [For, default 5 min]; OpenIM only
	FaultPoison   FaultKind = "poison"    // a call with any of the ids fails as a whole [IDs, Code: default what the API documents for bad input]
	FaultUserCode FaultKind = "user_code" // the ids fail, each for itself; Tencent only [IDs, Code, default 70107]

	// Faults of an OpenIM server, which keeps who is connected in its gateways, for
	// get_users_online_status, and in Redis, for get_users_status. They are about
	// the users of one gateway: IDs or, by default, a Share of all.
	FaultGatewayLost    FaultKind = "gateway_lost"    // the API cannot reach the gateway and calls its users offline, with success; Redis has them [IDs, Share]
	FaultGatewayStopped FaultKind = "gateway_stopped" // its users are disconnected; Redis keeps them until they expire [IDs, Share, For, default 30 min]
	FaultRedisEmpty     FaultKind = "redis_empty"     // Redis has lost its data; the gateways announce each user again in the second half of For [IDs, Share, For, default 20 min]

	// Faults of hooks. Path is PathTencentHooks or PathOpenIMHooks, or "" for both; IDs limit
	// a fault to the hooks about these users.
	FaultHookLost      FaultKind = "hook_lost"      // it is not sent
	FaultHookDoubled   FaultKind = "hook_doubled"   // it is sent twice
	FaultHookLate      FaultKind = "hook_late"      // it is sent later [Delay, default 30 s]
	FaultHookReordered FaultKind = "hook_reordered" // it is sent after the next one
	FaultHookForged    FaultKind = "hook_forged"    // the opposite is sent before it, with a wrong signature or secret
	FaultHookFalse     FaultKind = "hook_false"     // the opposite is sent before it
	FaultHookTrap      FaultKind = "hook_trap"      // of two connections on one platform one ended: offline is sent after online, though the user is online
	FaultHookStorm     FaultKind = "hook_storm"     // as after the restart of a gateway: all users, or those named, are disconnected and connected again, once for each of Times [IDs, Share]
	FaultHookRepeat    FaultKind = "hook_repeat"    // OpenIM's repetition: users who are connected are announced again [Delay, default 10 min]
)

var faultKinds = []FaultKind{
	FaultStatus, FaultHTML, FaultEmpty, FaultHuge, FaultBomb, FaultRedirect, FaultHang, FaultReset, FaultClose,
	FaultDelay, FaultDrip, FaultTruncate, FaultContentType, FaultWrongTypes, FaultDrop, FaultRepeat, FaultUnasked, FaultOffline, FaultFlip,
	FaultCode, FaultNotAdmin, FaultAuthLag, FaultAuthOld, FaultPoison, FaultUserCode,
	FaultGatewayLost, FaultGatewayStopped, FaultRedisEmpty,
	FaultHookLost, FaultHookDoubled, FaultHookLate, FaultHookReordered, FaultHookForged, FaultHookFalse, FaultHookTrap, FaultHookStorm, FaultHookRepeat,
}

// hooksOf says what a fault of hooks is about.
type hooksOf uint8

const (
	hooksOfNone hooksOf = iota // no hooks: a fault of calls
	hooksOfOne                 // each hook for itself
	hooksOfAll                 // all users at once
)

func (k FaultKind) hooks() hooksOf {
	switch k {
	case FaultHookStorm, FaultHookRepeat:
		return hooksOfAll
	case FaultHookLost, FaultHookDoubled, FaultHookLate, FaultHookReordered, FaultHookForged, FaultHookFalse, FaultHookTrap:
		return hooksOfOne
	default:
		return hooksOfNone
	}
}

// Fault makes calls fail. Several can hit one call: a delay and a code, for example.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// Path is the API path that is hit, or a prefix followed by *. "" hits all
	// presence and account APIs, but no logins; and faults of hooks those of both.
	Path string `json:"path,omitempty"`
	// Times is the number of calls that are hit; 0 means all until the fault is
	// cleared.
	Times int `json:"times,omitempty"`
	// After is the number of matching calls that pass before.
	After int `json:"after,omitempty"`
	// Probability, 0 to 1, is how likely a matching call is hit; 0 means 1.
	Probability float64 `json:"probability,omitempty"`

	Code       int           `json:"code,omitempty"`
	Text       string        `json:"text,omitempty"`
	Status     int           `json:"status,omitempty"`
	Body       string        `json:"body,omitempty"`
	RetryAfter int           `json:"retry_after,omitempty"` // seconds
	Size       int           `json:"size,omitempty"`        // bytes
	Delay      time.Duration `json:"-"`
	// Share, 0 to 1, is how many users a gateway fault affects, the same ones for
	// each fault with that share. IDs name them instead.
	Share float64 `json:"share,omitempty"`
	// For is how long Redis is wrong, in the population's time, or how long an auth
	// instance keeps a token that it has accepted.
	For time.Duration `json:"-"`
	// Echo repeats the call in the answer, with its credentials, as debug pages do.
	Echo bool `json:"echo,omitempty"`
	// IDs, if given, also limit the fault to calls with one of them, except for
	// FaultUnasked.
	IDs []string `json:"ids,omitempty"`
}

func (f Fault) validate() error {
	needs := func(ok bool, field string) error {
		if ok {
			return nil
		}
		return fmt.Errorf("a fault of kind %q needs %s", f.Kind, field)
	}
	if !slices.Contains(faultKinds, f.Kind) {
		return fmt.Errorf("unknown kind of fault %q; allowed: %q", f.Kind, faultKinds)
	}
	if err := f.validateNumbers(); err != nil {
		return err
	}
	switch f.Kind {
	case FaultStatus:
		return needs(f.Status != 0, "a status")
	case FaultCode:
		return needs(f.Code != 0, "a code")
	case FaultDelay:
		return needs(f.Delay > 0, "a delay")
	case FaultPoison, FaultUserCode, FaultUnasked:
		return needs(len(f.IDs) > 0, "ids")
	case FaultGatewayLost, FaultGatewayStopped, FaultRedisEmpty:
		return needs(len(f.IDs) > 0 || f.Share > 0, "ids or a share")
	default:
		return nil
	}
}

func (f Fault) validateNumbers() error {
	if min(f.Times, f.After, f.Size, f.RetryAfter) < 0 || min(f.Delay, f.For) < 0 || min(f.Probability, f.Share) < 0 || max(f.Probability, f.Share) > 1 {
		return fmt.Errorf("a fault of kind %q with a negative number, or a probability or a share above 1", f.Kind)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("a fault of kind %q with HTTP status %d; allowed: 200 to 599", f.Kind, f.Status)
	}
	return nil
}

// faults are the current faults.
type faults struct {
	mu     sync.Mutex
	random *rand.Rand
	lastID int
	active []*activeFault
}

type activeFault struct {
	Fault
	id      int
	ids     map[string]struct{}
	since   time.Time // by the population's time
	cleared chan struct{}

	passed, hits int // matching calls
}

// hit is a fault that hits a call.
type hit struct {
	*activeFault
	random uint64
}

func newFaults() *faults {
	// A fixed seed, so that the same calls in the same order meet the same faults.
	return &faults{random: rand.New(rand.NewPCG(1, 2))}
}

func (fs *faults) add(f Fault, since time.Time) (id int, err error) {
	if err := f.validate(); err != nil {
		return 0, err
	}
	a := &activeFault{Fault: f, ids: make(map[string]struct{}, len(f.IDs)), since: since, cleared: make(chan struct{})}
	for _, id := range f.IDs {
		a.ids[id] = struct{}{}
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.lastID++
	a.id = fs.lastID
	fs.active = append(fs.active, a)
	return a.id, nil
}

// clear ends one fault, or all of them if id is 0, and releases the calls that hang
// in it. It returns their number.
func (fs *faults) clear(id int) int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	before := len(fs.active)
	fs.active = slices.DeleteFunc(fs.active, func(a *activeFault) bool {
		if id != 0 && a.id != id {
			return false
		}
		close(a.cleared)
		return true
	})
	return before - len(fs.active)
}

// take returns the faults that hit a call, and counts the hits.
func (fs *faults) take(a *api, ids []string) []hit {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var hits []hit
	for _, f := range fs.active {
		if f.Times > 0 && f.hits >= f.Times || !f.matches(a, ids) {
			continue
		}
		if f.passed < f.After || f.Probability > 0 && fs.random.Float64() >= f.Probability {
			f.passed++
			continue
		}
		f.hits++
		hits = append(hits, hit{f, fs.random.Uint64()})
	}
	return hits
}

func (f *activeFault) matches(a *api, ids []string) bool {
	prefix, wild := strings.CutSuffix(f.Path, "*")
	switch {
	case f.Kind.hooks() != a.hooks:
		return false
	case f.Path == "":
		if a.kind == 0 && a.hooks == hooksOfNone {
			return false
		}
	case wild:
		if !strings.HasPrefix(a.path, prefix) {
			return false
		}
	case f.Path != a.path:
		return false
	}
	switch f.Kind {
	case FaultGatewayLost, FaultGatewayStopped, FaultRedisEmpty:
		return a.kind == OpenIMPresence
	case FaultUnasked, FaultHookStorm, FaultHookRepeat:
		return true
	default:
		return len(f.IDs) == 0 || slices.ContainsFunc(ids, f.about)
	}
}

// Defaults of For. Redis keys expire after half an hour; gateways announce their
// users again within 10 to 20 minutes.
const (
	redisExpiry   = 30 * time.Minute
	redisRecovery = 20 * time.Minute
)

// hides reports whether the fault makes a user appear offline to get_users_status
// (merged) or to get_users_online_status.
func (f *activeFault) hides(userID string, at time.Time, merged bool) bool {
	switch f.Kind {
	case FaultOffline:
		return len(f.IDs) == 0 || f.about(userID)
	case FaultGatewayLost:
		return f.holds(userID) && !merged
	case FaultGatewayStopped:
		return f.holds(userID) && (!merged || at.Sub(f.since) >= cmp.Or(f.For, redisExpiry))
	case FaultRedisEmpty:
		half := cmp.Or(f.For, redisRecovery) / 2
		return f.holds(userID) && merged && at.Sub(f.since) < half+time.Duration(unit(hash(1, userID))*float64(half))
	default:
		return false
	}
}

// holds reports whether the user is connected to the faulty gateway.
func (f *activeFault) holds(userID string) bool {
	return f.about(userID) || len(f.IDs) == 0 && unit(hash(0, userID)) < f.Share
}

// about reports whether the fault names the id.
func (f *activeFault) about(id string) bool {
	_, ok := f.ids[id]
	return ok
}

// FaultState is a fault and its hits.
type FaultState struct {
	Fault
	ID   int `json:"id"`
	Hits int `json:"hits"` // calls hit so far
}

func (fs *faults) list() []FaultState {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	states := make([]FaultState, len(fs.active))
	for i, a := range fs.active {
		states[i] = FaultState{Fault: a.Fault, ID: a.id, Hits: a.hits}
	}
	return states
}
