package repo

import (
	"testing"
	"time"
)

func TestAdopt(t *testing.T) {
	t.Parallel()
	local, server := time.Now(), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	first := reading{server: server, local: local, err: time.Millisecond}
	// after gives the reading of a clock that goes like ours, off by a little.
	after := func(d, off, err time.Duration) reading {
		return reading{server: server.Add(d + off), local: local.Add(d), err: err}
	}
	for name, test := range map[string]struct {
		second reading
		adopt  bool
	}{
		"a better one":                    {after(10*time.Second, 300*time.Microsecond, 100*time.Microsecond), true},
		"as good, but drift has added up": {after(time.Minute, 2*time.Millisecond, time.Millisecond), true},
		"a busy database":                 {after(10*time.Second, 15*time.Millisecond, 20*time.Millisecond), false},
		"busy, but the old one is stale":  {after(10*time.Minute, 15*time.Millisecond, 20*time.Millisecond), true},
		"busy, and the clock was set":     {after(10*time.Second, -time.Minute, 20*time.Millisecond), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c clock
			c.adopt(first)
			if c.reading != first {
				t.Fatal("the first reading was not adopted")
			}
			c.adopt(test.second)
			want := first
			if test.adopt {
				want = test.second
			}
			if c.reading != want {
				t.Errorf("the clock goes by %+v, want %+v", c.reading, want)
			}
		})
	}
}

func TestAhead(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{5 * time.Second, 0, -5 * time.Second} {
		local := time.Now()
		s := &Store{clock: &clock{reading: reading{server: local.Round(0).Add(-skew), local: local}}}
		// To the second: the wall clock may be slewed meanwhile.
		if got := s.Ahead().Round(time.Second); got != skew {
			t.Errorf("a machine that is ahead by %s says %s", skew, got)
		}
	}
}
