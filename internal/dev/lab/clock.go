package lab

import (
	"fmt"
	"sync"
	"time"
)

// Clock is a simulated time that runs at real speed and can jump forward. It is safe
// for concurrent use.
type Clock struct {
	mu   sync.Mutex
	base time.Time
	real time.Time // the real time at base
}

// NewClock returns a clock that starts at a time.
func NewClock(at time.Time) *Clock { return &Clock{base: at, real: time.Now()} }

// Now returns the simulated time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base.Add(time.Since(c.real))
}

// Reach moves the clock forward to at, if it is not past it already.
func (c *Clock) Reach(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.base.Add(time.Since(c.real)); now.Before(at) {
		c.base, c.real = at, time.Now()
	}
}

// JumpTo moves the clock forward. It returns an error if at is in the past.
func (c *Clock) JumpTo(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.base.Add(time.Since(c.real)); now.After(at) {
		return fmt.Errorf("it is past %s already: %s", at.Format(time.TimeOnly), now.Format(time.TimeOnly))
	}
	c.base, c.real = at, time.Now()
	return nil
}
