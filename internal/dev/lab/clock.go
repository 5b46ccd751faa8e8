package lab

import (
	"fmt"
	"sync"
	"time"
)

// Clock is a simulated time that goes at the real speed and jumps forward when it
// is told to. Safe for concurrent use.
type Clock struct {
	mu   sync.Mutex
	base time.Time
	real time.Time // when it stood at base
}

// NewClock makes a clock that stands at a time, and goes on from there.
func NewClock(at time.Time) *Clock { return &Clock{base: at, real: time.Now()} }

// Now is the simulated time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base.Add(time.Since(c.real))
}

// JumpTo moves the clock forward.
func (c *Clock) JumpTo(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.base.Add(time.Since(c.real)); now.After(at) {
		return fmt.Errorf("it is past %s already: %s", at.Format(time.TimeOnly), now.Format(time.TimeOnly))
	}
	c.base, c.real = at, time.Now()
	return nil
}
