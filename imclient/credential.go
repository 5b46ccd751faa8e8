package imclient

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Credential is what authorises calls: a token, or a signature.
type Credential struct {
	Text     string
	IssuedAt time.Time
	// RenewAt is when the next one is to be made, ExpireAt when this one is void.
	// Zero: it has no end.
	RenewAt, ExpireAt time.Time

	// serial tells it from all others, which may have the same text: a server that
	// dates its tokens in seconds issues the same one twice.
	serial int
}

const (
	// renewRetry is how long a credential that could not be renewed ahead of its
	// end is used before the next try.
	renewRetry = time.Minute
	// young is the age below which a refusal is not the end of one credential's time:
	// something goes on that the next one may not survive either.
	young = 5 * time.Second
	// firstPause and longestPause bound what is waited before the next one then. The
	// bound doubles with each; the pause is drawn from below it.
	firstPause, longestPause = 500 * time.Millisecond, 2 * time.Second
	// A provider that has refused so many new credentials in a row, over so long,
	// will refuse the next one too.
	maxRefusals = 3
	minRefusing = 30 * time.Second
)

// Credentials holds the credential of one account and makes the next one, one at
// a time: all calls that need it wait for the outcome. Safe for concurrent use.
//
// A credential that replaces a refused one is on probation: one call tries it, and
// the others wait until that call has been answered. So a provider that refuses
// everything is not flooded, however many calls there are.
type Credentials struct {
	// Make makes a credential: it logs in, or signs.
	Make func(ctx context.Context) (Credential, error)
	Now  func() time.Time
	// Kept is called with the error when a credential could not be renewed ahead of
	// its end, and is used on.
	Kept func(err error)

	turn     chan struct{} // a lock that can be waited for with a context: who makes the next one
	once     sync.Once     // makes turn
	failures atomic.Int64  // of Make

	mu       sync.Mutex
	held     Credential
	serials  int
	failure  error         // of the newest Make that failed
	refusals int           // credentials refused since a call was accepted
	since    time.Time     // when the first of them was
	hasty    int           // of them, in a row, those refused young
	proven   bool          // some call was accepted
	trial    chan struct{} // closed when the call that tries held is answered; nil: there is none
}

// Verdict is what became of a call as far as its credential goes.
type Verdict uint8

// The verdicts. Unknown is for calls that failed before the provider looked.
const (
	Unknown Verdict = iota
	Accepted
	Refused
)

// Get returns the credential to use. If there is none, or it is to be renewed, Get
// makes it. The caller must pass the credential to Settle once the call is over.
func (c *Credentials) Get(ctx context.Context) (Credential, error) {
	c.once.Do(func() { c.turn = make(chan struct{}, 1) })
	return c.get(ctx, c.failures.Load())
}

// get is Get for a caller that arrived after failures failed tries. A try that
// fails while it waits for its turn is its own failure, too.
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

// take returns the credential if it can be used now, or else what ends the trial
// to wait for; nil: the next one is to be made. The one that the caller has just
// made is good whatever it says of its times.
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

// usable reports whether the credential may be used, fresh whether it need not be
// renewed either. The clock may have been set back.
func (c *Credentials) usable() bool {
	now := c.Now()
	return c.held.serial != 0 && !now.Before(c.held.IssuedAt) && (c.held.ExpireAt.IsZero() || now.Before(c.held.ExpireAt))
}

func (c *Credentials) fresh() bool {
	return c.usable() && (c.held.RenewAt.IsZero() || c.Now().Before(c.held.RenewAt))
}

// renew makes the next credential, unless another caller was first, and returns
// its serial.
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

// needed reports whether a credential is to be made by a caller that arrived after
// failures failed tries, and how many were refused young. The error is that of a try
// that failed meanwhile.
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

// pause waits before the next credential, after so many were refused young. The
// first of them is replaced at once: it may just have met a log-out.
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

// Settle notes what became of a call with the credential. If it was refused, the
// next Get makes another one. hopeless reports that this will not help.
func (c *Credentials) Settle(used Credential, v Verdict) (hopeless bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if used.serial == 0 || used.serial != c.held.serial {
		return false // another one is in use by now, or on trial
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

// Unproven reports whether no call has been accepted yet, although more than one
// credential was refused.
func (c *Credentials) Unproven() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.proven && c.refusals > 1
}
