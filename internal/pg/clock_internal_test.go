package pg

import (
	"testing"
	"time"
)

func TestAdopt(t *testing.T) {
	t.Parallel()
	local, server := time.Now(), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	first := reading{server: server, local: local, err: time.Millisecond}
	// after returns a reading of a clock that runs like ours, with a small offset.
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

// TestNow_setBack: time stands still while the database's clock, which was set back,
// catches up. The queue, which compares with it, follows it at once.
func TestNow_setBack(t *testing.T) {
	t.Parallel()
	local, server := time.Now(), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := &DB{clock: &clock{}}
	set := func(to time.Time) { s.clock.adopt(reading{server: to, local: local}) }
	set(server)
	before := s.Now()
	for range 3 {
		set(server.Add(-time.Hour))
		if now := s.Now(); !now.Equal(before) {
			t.Fatalf("Now = %s, was %s", now, before)
		}
	}
	if now := s.ServerNow(); now.After(server.Add(-30 * time.Minute)) {
		t.Errorf("ServerNow = %s", now)
	}
	set(server.Add(time.Second))
	if now := s.Now(); now.Before(server.Add(time.Second)) {
		t.Errorf("Now = %s after it has caught up", now)
	}
}

// TestServerNow: a machine's wrong clock is none of the database's time, and
// neither is a clock that was put in the place of it.
func TestServerNow(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{time.Hour, 0, -time.Hour} {
		local := time.Now()
		server := local.Round(0).Add(-skew)
		s := &DB{clock: &clock{reading: reading{server: server, local: local}}, config: Config{Now: func() time.Time { return time.Time{} }}}
		// To the minute: time goes on meanwhile.
		if got := s.ServerNow().Sub(server).Truncate(time.Minute); got != 0 {
			t.Errorf("a machine that is ahead by %s is off by %s", skew, got)
		}
	}
}

// TestSupported: which clocks are believed.
func TestSupported(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	server := time.Date(2027, 5, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		reading, machine time.Duration // behind the database's clock; 0: there is none
		want             int           // witnesses
		supported        bool
	}{
		"all agree":                               {time.Second, time.Second, 2, true},
		"the machine's clock is years behind":     {time.Second, 2 * 365 * day, 1, true}, // from before the release: none at all
		"the machine's clock is days behind":      {0, 3 * day, 1, true},
		"a machine that was paused for long":      {60 * day, time.Second, 2, true},
		"the database's clock is ahead":           {60 * day, 60 * day, 2, false},
		"… at the start":                          {0, 60 * day, 1, false},
		"a machine without a clock, at the start": {0, 30 * 365 * day, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			if test.reading > 0 {
				c.reading = reading{server: server.Add(-test.reading), local: server.Add(-test.machine), err: time.Millisecond}
			}
			all := c.witnesses(reading{server: server, local: server.Add(-test.machine)})
			if len(all) != test.want || supported(server, all) != test.supported {
				t.Errorf("witnesses %v, supported = %t", all, supported(server, all))
			}
		})
	}
}
