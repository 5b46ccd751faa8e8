package imsim

import (
	"sync"
	"time"
)

// window holds the instants of the second that ends at the newest of them.
type window struct {
	instants []time.Time
	head     int // the oldest that still counts
}

// slide forgets what is a second old at now, or older, and returns how many
// instants are left.
func (w *window) slide(now time.Time) int {
	for w.head < len(w.instants) && now.Sub(w.instants[w.head]) >= time.Second {
		w.head++
	}
	if w.head > 1024 && w.head*2 > len(w.instants) {
		w.instants = append(w.instants[:0], w.instants[w.head:]...)
		w.head = 0
	}
	return len(w.instants) - w.head
}

func (w *window) add(now time.Time) { w.instants = append(w.instants, now) }

// limiter lets at most rate calls through in any one-second window. What it
// refuses does not count. A rate of zero or less lets everything through.
type limiter struct {
	rate int

	mu     sync.Mutex
	passed window
}

func (l *limiter) allow(now func() time.Time) bool {
	if l.rate <= 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := now() // under the lock, so that the instants are in order
	if l.passed.slide(at) >= l.rate {
		return false
	}
	l.passed.add(at)
	return true
}
