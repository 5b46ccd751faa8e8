package imclient

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Credential authorises calls: a token or a signature.
type Credential struct {
	Text     string
	IssuedAt time.Time
	// RenewAt is when the next one is due, ExpireAt when this one becomes invalid; zero if
	// it has no end.
	RenewAt, ExpireAt time.Time

	// serial distinguishes credentials of the same text: a server that dates its tokens in
	// seconds issues the same one twice.
	serial int
}

const (
	// renewRetry is the time between two attempts to renew a credential before its end.
	renewRetry = time.Minute
	// young is the age below which a refusal does not come from a credential's age, so that
	// the next one may be refused too.
	young = 5 * time.Second
	// firstPause and longestPause limit the backoff, with full jitter, before the next
	// credential then. The limit doubles with each.
	firstPause, longestPause = 500 * time.Millisecond, 2 * time.Second
	// A provider that refused more than maxRefusals new credentials in a row, for
	// minRefusing, will refuse the next one too.
	maxRefusals = 3
	minRefusing = 30 * time.Second
)

// Credentials holds the credential of one account and makes the next one, one at a time,
// while all calls that need it wait. Safe for concurrent use.
//
// A credential that replaces a refused one is on trial: one call uses it, and the others
// wait for that call's answer. A provider that refuses everything is thus not flooded.
type Credentials struct {
	// Make logs in or signs.
	Make func(ctx context.Context) (Credential, error)
	Now  func() time.Time
	// Kept is called with the error if a credential could not be renewed before its end
	// and remains in use.
	Kept func(err error)

	turn     chan struct{} // lock of the caller that makes the next one; waits with a context
	once     sync.Once     // creates turn
	failures atomic.Int64  // of Make

	mu       sync.Mutex
	held     Credential
	serials  int
	failure  error         // of the latest Make that failed
	refusals int           // credentials refused since a call was accepted
	since    time.Time     // of the first of them
	hasty    int           // credentials in a row that were refused young
	proven   bool          // whether a call was ever accepted
	trial    chan struct{} // closed when the call that tries held ends; nil without a trial
}

// Verdict is what a call's outcome says of its credential.
type Verdict uint8

// The verdicts. Unknown is for calls that failed before the provider checked it.
const (
	Unknown Verdict = iota
	Accepted
	Refused
)

// Get returns the credential to use, and makes it if there is none or a renewal is due. The
// caller must pass the credential to Settle after the call. Errors are the context's and
// those of Make.
func (c *Credentials) Get(ctx context.Context) (Credential, error) {
	c.once.Do(func() { c.turn = make(chan struct{}, 1) })
	return c.get(ctx, c.failures.Load())
}

// get is Get for a caller that arrived after failures failed logins. A login that fails
// while the caller waits for its turn is the caller's failure too.
func (c *Credentials) get(ctx context.Context, failures int64) (Credential, error) {
	for made := 0; ; {
		held, trial, ok := c.take(made)
		if ok {
			return held, nil
		}
		if trial != nil {
			select {
			case <-trial:
			case <-ctx.Done():
				return Credential{}, ctx.Err()
			}
			continue
		}
		var err error
		if made, err = c.renew(ctx, failures); err != nil {
			return Credential{}, err
		}
	}
}

// take returns the credential if it can be used now. Otherwise it returns the trial to wait
// for, or nil if the next credential must be made. The credential that the caller has just
// made, of serial made, is used whatever its times are.
func (c *Credentials) take(made int) (held Credential, trial chan struct{}, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.fresh() && (c.held.serial == 0 || c.held.serial != made):
		return Credential{}, nil, false
	case c.refusals == 0:
		return c.held, nil, true
	case c.trial != nil:
		return Credential{}, c.trial, false
	default:
		c.trial = make(chan struct{})
		return c.held, nil, true
	}
}

// usable reports whether the credential is valid. The clock may have been set back.
func (c *Credentials) usable() bool {
	now := c.Now()
	return c.held.serial != 0 && !now.Before(c.held.IssuedAt) && (c.held.ExpireAt.IsZero() || now.Before(c.held.ExpireAt))
}

// fresh reports whether the credential is valid and no renewal is due.
func (c *Credentials) fresh() bool {
	return c.usable() && (c.held.RenewAt.IsZero() || c.Now().Before(c.held.RenewAt))
}

// renew makes the next credential, unless another caller was first, and returns its serial.
func (c *Credentials) renew(ctx context.Context, failures int64) (serial int, err error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	needed, hasty, err := c.needed(failures)
	if !needed || err != nil {
		return 0, err
	}
	if err := pause(ctx, hasty); err != nil {
		return 0, err
	}
	made, err := c.Make(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.serials++
		made.serial = c.serials
		c.held = made
	case ctx.Err() != nil:
		return 0, err
	case c.usable():
		c.held.RenewAt = c.Now().Add(renewRetry)
		c.Kept(err)
	default:
		c.failure = err
		c.failures.Add(1)
		return 0, err
	}
	return c.held.serial, nil
}

// needed reports whether a caller that arrived after failures failed logins must make a
// credential, and how many were refused young. The error is that of a login that has failed
// since.
func (c *Credentials) needed(failures int64) (needed bool, hasty int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fresh():
		return false, 0, nil
	case !c.usable() && c.failures.Load() > failures:
		return false, 0, c.failure
	default:
		return true, c.hasty, nil
	}
}

// pause waits before the next credential after hasty ones were refused young. The first is
// replaced at once: the reason may have been a log-out.
func pause(ctx context.Context, hasty int) error {
	if hasty < 2 {
		return nil
	}
	timer := time.NewTimer(rand.N(min(firstPause<<min(hasty-2, 10), longestPause)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Settle records the outcome of a call with a credential. After a refusal the next Get
// makes another one; hopeless reports that this will not help.
func (c *Credentials) Settle(used Credential, v Verdict) (hopeless bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if used.serial == 0 || used.serial != c.held.serial {
		return false // replaced since
	}
	switch v {
	case Accepted:
		c.refusals, c.proven = 0, true
	case Refused:
		now := c.Now()
		if c.refusals++; c.refusals == 1 {
			c.since = now
		}
		if c.hasty++; now.Sub(used.IssuedAt) >= young {
			c.hasty = 0
		}
		c.held = Credential{}
		hopeless = c.refusals > maxRefusals && now.Sub(c.since) >= minRefusing
	}
	if c.trial != nil {
		close(c.trial)
		c.trial = nil
	}
	return hopeless
}

// Unproven reports whether several credentials were refused and no call was ever accepted.
func (c *Credentials) Unproven() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.proven && c.refusals > 1
}
