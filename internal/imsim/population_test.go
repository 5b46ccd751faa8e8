package imsim

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// userIDs makes ids as they are often found.
func userIDs(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("user_%d", i)
	}
	return all
}

// share is the part of the users for whom a condition holds.
func share(users []string, holds func(id string) bool) float64 {
	n := 0
	for _, id := range users {
		if holds(id) {
			n++
		}
	}
	return float64(n) / float64(len(users))
}

func wantShare(t *testing.T, what string, got, low, high float64) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("share of %s: %.3f, want %.3f to %.3f", what, got, low, high)
	}
}

func connected(devices []Device) bool {
	return slices.ContainsFunc(devices, func(d Device) bool { return d.Mode != Push })
}

var monday = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

func TestDailyRhythm(t *testing.T) {
	users := userIDs(4000)
	d := NewDaily(1, monday)
	online := func(at time.Time) float64 {
		return share(users, func(id string) bool { return connected(d.AppendDevices(nil, id, at)) })
	}
	// Most users live around UTC+8: evening there is noon UTC, night is 20:00 UTC.
	evening, night := online(monday.Add(13*time.Hour)), online(monday.Add(20*time.Hour))
	wantShare(t, "users online in the evening", evening, 0.15, 0.5)
	wantShare(t, "users online at night", night, 0.01, 0.15)
	if evening < 3*night {
		t.Errorf("online in the evening %.3f, at night %.3f: no rhythm", evening, night)
	}
	noon := monday.Add(13 * time.Hour)
	pushed := share(users, func(id string) bool {
		devices := d.AppendDevices(nil, id, noon)
		return len(devices) > 0 && !connected(devices)
	})
	wantShare(t, "users reachable by push only", pushed, 0.2, 0.7)
	several := share(users, func(id string) bool { return len(d.AppendDevices(nil, id, noon)) > 1 })
	wantShare(t, "users with several devices", several, 0.05, 0.5)
	never := share(users, func(id string) bool {
		for day := range 21 {
			if len(d.AppendDevices(nil, id, noon.AddDate(0, 0, day))) > 0 {
				return false
			}
		}
		return true
	})
	wantShare(t, "users never seen", never, 0.1, 0.3)
}

func TestDailyIsDeterministic(t *testing.T) {
	users := userIDs(500)
	a, b, other := NewDaily(1, monday), NewDaily(1, monday), NewDaily(2, monday)
	at := monday.Add(13 * time.Hour)
	for _, id := range users {
		if diff := cmp.Diff(a.AppendDevices(nil, id, at), b.AppendDevices(nil, id, at)); diff != "" {
			t.Fatalf("%s differs between equal populations:\n%s", id, diff)
		}
	}
	same := share(users, func(id string) bool {
		return cmp.Equal(a.AppendDevices(nil, id, at), other.AppendDevices(nil, id, at))
	})
	wantShare(t, "users alike under another seed", same, 0, 0.7)
}

// TestDailySessions follows devices minute by minute: sessions last from
// minutes to hours, and a push state begins where one ends.
func TestDailySessions(t *testing.T) {
	d := NewDaily(3, monday)
	var lengths []int
	for _, id := range userIDs(80) {
		length := 0
		for minute := range 2 * 24 * 60 {
			if connected(d.AppendDevices(nil, id, monday.Add(time.Duration(minute)*time.Minute))) {
				length++
			} else if length > 0 {
				lengths = append(lengths, length)
				length = 0
			}
		}
	}
	slices.Sort(lengths)
	if n := len(lengths); n < 80 {
		t.Fatalf("%d sessions in two days of 80 users", n)
	}
	median, longest := lengths[len(lengths)/2], lengths[len(lengths)-1]
	if median < 15 || median > 150 || longest < 240 || longest > 24*60 {
		t.Errorf("median session %d min, longest %d min", median, longest)
	}
}

// TestDailyPushAges finds for each device in push the end of its last session,
// and expects it to go exactly seven days later unless there was another.
func TestDailyPushAges(t *testing.T) {
	d := NewDaily(4, monday)
	aged := 0
	for _, id := range userIDs(3000) {
		h := hash(d.Seed, id)
		activity := unit(draw(h, drawActive))
		p, ok := mobile(draw(h, drawMobile))
		if !ok {
			continue
		}
		device, now := draw(h, drawMobile), monday.Unix()
		s, ok := lastSession(device, activity, now, int64(pushKept/time.Second))
		if !ok || s.logout || s.end > now {
			continue
		}
		gone := s.end + int64(pushKept/time.Second)
		if next, ok := lastSession(device, activity, gone-1, int64(pushKept/time.Second)); !ok || next != s {
			continue // seen again within the seven days
		}
		if got := appendDevice(nil, p, device, activity, gone-1); !cmp.Equal(got, []Device{{p, Push}}) {
			t.Errorf("%s: %v a second before seven days are over", id, got)
		}
		if got := appendDevice(nil, p, device, activity, gone); len(got) > 0 && got[0].Mode == Push {
			t.Errorf("%s: still in push seven days after the disconnect", id)
		}
		aged++
	}
	if aged < 3 {
		t.Errorf("only %d devices aged: the test shows nothing", aged)
	}
}

func TestDailyImports(t *testing.T) {
	users := userIDs(5000)
	d := NewDaily(5, monday)
	imported := func(at time.Time) float64 {
		return share(users, func(id string) bool { return d.Imported(id, at) })
	}
	wantShare(t, "users imported at the start", imported(monday), 0.86, 0.90)
	wantShare(t, "users imported after half of the span", imported(monday.AddDate(0, 0, 15)), 0.91, 0.95)
	wantShare(t, "users imported in the end", imported(monday.AddDate(0, 0, 30)), 0.965, 0.99)
	for _, id := range users {
		if at := monday.Add(13 * time.Hour); !d.Imported(id, at) && len(d.AppendDevices(nil, id, at)) > 0 {
			t.Fatalf("%s is reachable but not imported", id)
		}
	}
}

// asTencent and asOpenIM are all that each backend shows of a user's devices.
func asTencent(devices []Device) (v servedValue) {
	for _, d := range devices {
		mode := d.Mode
		if mode == Background {
			mode = Online
		}
		v.state = max(v.state, tencentState(mode))
		v.add(tencentPlatforms[d.Platform].as, mode)
	}
	return v
}

func asOpenIM(devices []Device) (v servedValue) {
	for _, d := range devices {
		if d.Mode != Push {
			v.state = servedOnline
			v.add(d.Platform, d.Mode)
		}
	}
	return v
}

func TestRoundsChangeTheirShare(t *testing.T) {
	type view struct {
		tencent, openIM servedValue
		imported        bool
	}
	users := userIDs(10000)
	for _, want := range []float64{0.05, 0.3, 1} {
		r := NewRounds(7, want)
		look := func() []view {
			all := make([]view, len(users))
			for i, id := range users {
				devices := r.AppendDevices(nil, id, time.Time{})
				all[i] = view{asTencent(devices), asOpenIM(devices), r.Imported(id, time.Time{})}
			}
			return all
		}
		before := look()
		for n := 1; n <= 5; n++ {
			r.SetRound(n)
			after := look()
			var tencent, openIM, imported int
			for i := range users {
				if before[i].tencent != after[i].tencent {
					tencent++
				}
				if before[i].openIM != after[i].openIM {
					openIM++
				}
				if before[i].imported != after[i].imported {
					imported++
				}
			}
			if tencent != openIM {
				t.Errorf("round %d: Tencent shows %d changes, OpenIM %d", n, tencent, openIM)
			}
			all := float64(len(users))
			wantShare(t, "changed presences", float64(tencent)/all, want-0.01, want+0.01)
			wantShare(t, "changed accounts", float64(imported)/all, want-0.01, want+0.01)
			before = after
		}
	}
}

func TestRoundsStart(t *testing.T) {
	users := userIDs(20000)
	r := NewRounds(8, 0.05)
	at := func(id string) []Device { return r.AppendDevices(nil, id, time.Time{}) }
	wantShare(t, "unknown users", share(users, func(id string) bool { return !r.Imported(id, time.Time{}) }), 0.015, 0.025)
	wantShare(t, "connected users", share(users, func(id string) bool { return connected(at(id)) }), 0.55, 0.65)
	wantShare(t, "offline users", share(users, func(id string) bool { return len(at(id)) == 0 }), 0.15, 0.25)
	r.SetRound(3)
	three := at("user_1")
	r.SetRound(4)
	r.SetRound(3)
	if diff := cmp.Diff(three, at("user_1")); diff != "" || r.Round() != 3 {
		t.Errorf("round 3 differs when come back to:\n%s", diff)
	}
}

// TestRoundsGroups checks the promise of Rounds: a user who goes from one group of
// devices to the next is served differently by both backends.
func TestRoundsGroups(t *testing.T) {
	for i, group := range cycle {
		next := cycle[(i+1)%len(cycle)]
		for _, a := range group {
			for _, b := range next {
				if asTencent(a) == asTencent(b) || asOpenIM(a) == asOpenIM(b) {
					t.Errorf("groups %d and its next: %v and %v look alike", i, a, b)
				}
			}
		}
	}
}

func TestFixed(t *testing.T) {
	base := NewRounds(9, 0)
	base.UnknownShare = 0
	f := NewFixed(base)
	now := time.Time{}
	f.Set("u1", Device{Harmony, Online})
	f.Set("u2")
	f.SetNotImported("u3")
	if diff := cmp.Diff([]Device{{Harmony, Online}}, f.AppendDevices(nil, "u1", now)); diff != "" {
		t.Errorf("u1 (-want +got):\n%s", diff)
	}
	if got := f.AppendDevices(nil, "u2", now); len(got) != 0 || !f.Imported("u2", now) {
		t.Errorf("u2 has %v", got)
	}
	if f.Imported("u3", now) || !f.Imported("u4", now) {
		t.Error("u3 must be unknown, u4 known from the base")
	}
	f.Unset("u1")
	if diff := cmp.Diff(base.AppendDevices(nil, "u1", now), f.AppendDevices(nil, "u1", now)); diff != "" {
		t.Errorf("u1 is not the base's again (-want +got):\n%s", diff)
	}
	alone := NewFixed(nil)
	if alone.Imported("u1", now) || len(alone.AppendDevices(nil, "u1", now)) > 0 {
		t.Error("without a base nobody is known")
	}
}

func TestSpeed(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Speed = 1440 })
	start := b.populationTime(b.clock.now())
	b.clock.advance(time.Minute)
	if got := b.populationTime(b.clock.now()).Sub(start); got != 24*time.Hour {
		t.Errorf("a minute is %s of the population's time, want a day", got)
	}
}

func TestNames(t *testing.T) {
	for p := range numPlatforms {
		for _, m := range []Mode{Push, Background, Online} {
			want := Device{p, m}
			text, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			var got Device
			if err := json.Unmarshal(text, &got); err != nil || got != want {
				t.Errorf("%s read as %v: %v", text, got, err)
			}
		}
	}
	if got := fmt.Sprint(Device{numPlatforms, 0}); got != "{Platform(10) Mode(0)}" {
		t.Errorf("what has no name prints as %s", got)
	}
}

func TestFloor(t *testing.T) {
	for n, want := range map[int64]int64{0: 0, 9: 0, 10: 10, -1: -10, -10: -10} {
		if got := floor(n, 10); got != want {
			t.Errorf("floor(%d, 10) = %d, want %d", n, got, want)
		}
	}
}
