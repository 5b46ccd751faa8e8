package imclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// issuer makes credentials that are good until they are voided.
type issuer struct {
	lifetime time.Duration // 0: without end
	made     atomic.Int64
	goodFrom atomic.Int64 // the first number that is not void
	refuse   atomic.Bool  // everything
	same     bool         // all have the same text
	takes    time.Duration
	fail     atomic.Pointer[error]
}

func (i *issuer) credentials() *Credentials {
	return &Credentials{Now: time.Now, Kept: func(error) {}, Make: func(context.Context) (Credential, error) {
		time.Sleep(i.takes)
		if err := i.fail.Load(); err != nil {
			return Credential{}, *err
		}
		c := Credential{Text: fmt.Sprint("t", i.made.Add(1)), IssuedAt: time.Now()}
		if i.same {
			c.Text = "same"
		}
		if i.lifetime > 0 {
			c.RenewAt, c.ExpireAt = c.IssuedAt.Add(i.lifetime*4/5), c.IssuedAt.Add(i.lifetime)
		}
		return c, nil
	}}
}

// void ends all credentials made so far.
func (i *issuer) void() { i.goodFrom.Store(i.made.Load() + 1) }

// caller makes calls as a client does. A call is judged when it arrives, half way.
type caller struct {
	*Credentials
	issuer          *issuer
	refused, served atomic.Int64
}

const callTakes = 20 * time.Millisecond

// call makes a call and another one if the first is refused, and reports whether it
// was served, and if not, whether that is hopeless.
func (c *caller) call(ctx context.Context) (served, hopeless bool, err error) {
	for range 2 {
		credential, err := c.Get(ctx)
		if err != nil {
			return false, false, err
		}
		time.Sleep(callTakes / 2)
		good := !c.issuer.refuse.Load() && int64(credential.serial) >= c.issuer.goodFrom.Load()
		time.Sleep(callTakes / 2)
		if good {
			c.Settle(credential, Accepted)
			c.served.Add(1)
			return true, false, nil
		}
		c.refused.Add(1)
		if c.Settle(credential, Refused) {
			return false, true, nil
		}
	}
	return false, false, nil
}

func newCaller(i *issuer) *caller { return &caller{Credentials: i.credentials(), issuer: i} }

// TestCredentials_voided: credentials that are voided again and again amid many
// calls cost one refused call for each that was in flight, and one try each.
func TestCredentials_voided(t *testing.T) {
	for _, same := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const callers, voids = 64, 5
			i := &issuer{same: same, takes: 10 * time.Millisecond}
			c := newCaller(i)
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					for range 500 {
						for {
							served, hopeless, err := c.call(t.Context())
							if err != nil || hopeless {
								t.Errorf("hopeless %t, %v", hopeless, err)
							}
							if served {
								break
							}
							time.Sleep(100 * time.Millisecond) // the backoff of jobs
						}
					}
				})
			}
			for range voids {
				time.Sleep(400 * time.Millisecond)
				i.void()
			}
			all.Wait()
			refused, made := c.refused.Load(), i.made.Load()
			if refused > voids*(callers+1) || made > 2*voids+1 || refused == 0 {
				t.Errorf("same text %t: %d calls were refused, %d credentials made", same, refused, made)
			}
		})
	}
}

// callUntilHopeless makes calls from n goroutines until one is hopeless.
func (c *caller) callUntilHopeless(ctx context.Context, n int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, hopeless, _ := c.call(ctx); hopeless {
					cancel()
				}
			}
		})
	}
	all.Wait()
}

// TestCredentials_refuses: while everything is refused, one call at a time tries
// the next credential, ever more seldom, until that is hopeless.
func TestCredentials_refuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		c := newCaller(i)
		if served, _, err := c.call(t.Context()); !served || err != nil {
			t.Fatal(served, err)
		}
		time.Sleep(time.Minute)
		i.refuse.Store(true)
		begun := time.Now()
		c.callUntilHopeless(t.Context(), 64)
		if took := time.Since(begun); took < minRefusing || took > minRefusing+2*longestPause {
			t.Errorf("given up after %s", took)
		}
		if made := i.made.Load() - 1; made < maxRefusals || made > 60 || c.refused.Load() > 64+made {
			t.Errorf("%d credentials were made, %d calls refused", made, c.refused.Load())
		}
		// It is the same afterwards, at once, and over with the first success.
		if _, hopeless, err := c.call(t.Context()); !hopeless || err != nil {
			t.Errorf("hopeless %t, %v", hopeless, err)
		}
		i.refuse.Store(false)
		for range 3 {
			if served, hopeless, err := c.call(t.Context()); !served || hopeless || err != nil {
				t.Errorf("served %t, hopeless %t, %v", served, hopeless, err)
			}
		}
	})
}

// TestCredentials_trial: a call that tries a new credential and gets no answer
// leaves the trial to the next one.
func TestCredentials_trial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := (&issuer{}).credentials()
		get := func() Credential {
			got, err := c.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		first := get()
		if other := get(); other != first {
			t.Errorf("got %v and %v", first, other)
		}
		c.Settle(first, Refused)
		tried := get()
		var waits sync.WaitGroup
		var through atomic.Int64
		for range 3 {
			waits.Go(func() {
				got := get()
				through.Add(1)
				time.Sleep(time.Second)
				c.Settle(got, Unknown)
			})
		}
		synctest.Wait()
		if through.Load() != 0 {
			t.Error("others do not wait for the outcome of the trial")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Get(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		c.Settle(first, Refused) // late, of the one before
		c.Settle(tried, Unknown)
		synctest.Wait()
		if n := through.Load(); n != 1 {
			t.Errorf("%d calls try the credential at once", n)
		}
		waits.Wait()
		c.Settle(get(), Accepted)
		for range 2 {
			if got := get(); got != tried {
				t.Errorf("an accepted credential is not for all: got %v", got)
			}
		}
	})
}

// TestCredentials_sharedFailure: a try that fails fails for all that waited for it,
// and for no one who comes later.
func TestCredentials_sharedFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		i := &issuer{takes: time.Second}
		i.fail.Store(&broken)
		tries := 0
		c := i.credentials()
		plain := c.Make
		c.Make = func(ctx context.Context) (Credential, error) { tries++; return plain(ctx) }
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				if _, err := c.Get(t.Context()); err != broken {
					t.Errorf("got %v", err)
				}
			})
		}
		all.Wait()
		if tries != 1 {
			t.Errorf("%d tries", tries)
		}
		i.fail.Store(nil)
		if _, err := c.Get(t.Context()); err != nil || tries != 2 {
			t.Errorf("%v after %d tries", err, tries)
		}
	})
}

// TestCredentials_renewed: a credential is renewed ahead of its end; one that
// cannot be is used to its end. One from the future, as the clock has been set
// back, is renewed, too.
func TestCredentials_renewed(t *testing.T) {
	broken := errors.New("broken")
	i := &issuer{lifetime: 1000 * time.Second}
	now := time.Now()
	c := i.credentials()
	kept := 0
	c.Kept = func(error) { kept++ }
	c.Now = func() time.Time { return now }
	plain := c.Make
	c.Make = func(ctx context.Context) (Credential, error) {
		got, err := plain(ctx)
		got.IssuedAt, got.RenewAt, got.ExpireAt = now, now.Add(800*time.Second), now.Add(1000*time.Second)
		return got, err
	}
	for n, step := range []struct {
		after time.Duration
		fails bool
		want  string // "": an error
		kept  int
	}{
		{0, false, "t1", 0},
		{799 * time.Second, false, "t1", 0},
		{time.Second, false, "t2", 0},
		{800 * time.Second, true, "t2", 1},
		{renewRetry - time.Second, true, "t2", 1},
		{time.Second, true, "t2", 2},
		{140 * time.Second, true, "", 2},
		{0, false, "t3", 2},
		{-time.Hour, false, "t4", 2},
	} {
		now = now.Add(step.after)
		i.fail.Store(nil)
		if step.fails {
			i.fail.Store(&broken)
		}
		got, err := c.Get(t.Context())
		if got.Text != step.want || (err != nil) != (step.want == "") || kept != step.kept {
			t.Errorf("step %d: %q, %v, kept %d times; want %q, %d", n, got.Text, err, kept, step.want, step.kept)
		}
		c.Settle(got, Accepted)
	}
}
