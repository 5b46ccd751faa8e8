package imsim

import (
	"sync"
	"time"
)

// window contains the instants of the second that ends at the newest of them.
type window struct {
	instants []time.Time
	head     int // the oldest that still counts
}

// slide removes instants that are a second old, and returns the number of the others.
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

// limiter allows at most rate calls in any second; refused calls do not count. A rate
// of zero or less is unlimited.
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
