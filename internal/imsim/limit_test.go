package imsim

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestLimiterSlides offers calls at random and checks every window there is.
func TestLimiterSlides(t *testing.T) {
	const rate = 50
	l := limiter{rate: rate}
	c := newClock()
	random := rand.New(rand.NewPCG(1, 1))
	var passed []time.Time
	for range 20000 {
		c.advance(time.Duration(random.IntN(20)) * time.Millisecond)
		at := c.now()
		allowed := l.allow(c.now)
		within := 0
		for i := len(passed) - 1; i >= 0 && at.Sub(passed[i]) < time.Second; i-- {
			within++
		}
		if want := within < rate; allowed != want {
			t.Fatalf("with %d calls passed in the last second, allow = %t", within, allowed)
		}
		if allowed {
			passed = append(passed, at)
		}
	}
	if n := len(l.passed.instants); n > 4096 {
		t.Errorf("%d instants are held", n)
	}
}

func TestNoLimit(t *testing.T) {
	l := limiter{rate: -1}
	c := newClock()
	for n := range 1000 {
		if !l.allow(c.now) {
			t.Fatalf("call %d refused", n)
		}
	}
}
