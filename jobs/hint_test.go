package jobs

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

func TestHint_agrees(t *testing.T) {
	on := func(p imclient.Platform) imclient.Presence { return presenceOn(imclient.StateOnline, p) }
	background := imclient.Presence{State: imclient.StateOnline}
	background.Platforms.Add(imclient.PlatformIOS, imclient.ModeBackground)
	bare := imclient.Presence{State: imclient.StateOnline}
	push := imclient.Presence{State: imclient.StatePushOnline}
	push.Platforms.Add(imclient.PlatformIOS, imclient.ModePushOnline)
	login := imclient.Hook{State: imclient.StateOnline, Platform: imclient.PlatformIOS}
	logout := imclient.Hook{State: imclient.StateOffline, Platform: imclient.PlatformIOS, Logout: true}
	anyLogin, anyLogout := imclient.Hook{State: imclient.StateOnline}, imclient.Hook{Logout: true}
	for name, tc := range map[string]struct {
		hook            imclient.Hook
		value           imclient.Presence
		agrees, repeats bool
	}{
		"a login, and the user is there":               {login, on(imclient.PlatformIOS), true, true},
		"a login, in the background":                   {login, background, true, true},
		"a login, and no platforms are known":          {login, bare, true, true},
		"a login, on another platform":                 {login, on(imclient.PlatformWeb), false, false},
		"a login, and the user is offline":             {login, offline, false, false},
		"a login, and only push is left":               {login, push, false, false},
		"a login somewhere":                            {anyLogin, on(imclient.PlatformWeb), true, true},
		"a logout, and the user is there":              {logout, on(imclient.PlatformIOS), false, false},
		"a logout, and no platforms are known":         {logout, bare, false, false},
		"a logout of one device of two":                {logout, on(imclient.PlatformWeb), true, true},
		"a logout, and the user is offline":            {logout, offline, true, true},
		"a logout, which may end push":                 {logout, push, true, false},
		"a logout somewhere, and the user is there":    {anyLogout, on(imclient.PlatformWeb), false, false},
		"something, which may have changed everything": {imclient.Hook{}, on(imclient.PlatformIOS), true, false},
	} {
		h := &hint{Hook: tc.hook}
		if got := h.agrees(tc.value); got != tc.agrees {
			t.Errorf("%s: agrees %t, want %t", name, got, tc.agrees)
		}
		if got := h.repeats(tc.value); got != tc.repeats {
			t.Errorf("%s: repeats %t, want %t", name, got, tc.repeats)
		}
	}
}

// TestHints: hints are coalesced by user, bounded and taken in the order of their coming.
func TestHints(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	r := &room{most: 3}
	s := newHints(r)
	add := func(id string, told, arrived int) string {
		h := &hint{Hook: imclient.Hook{UserID: id}, arrived: at(arrived)}
		if told > 0 {
			h.ToldAt = at(told)
		}
		replaced, taken := s.add(h)
		return fmt.Sprint(replaced, taken)
	}
	got := []string{add("a", 5, 10), add("b", 0, 11), add("a", 4, 12), add("b", 7, 13), add("c", 0, 14), add("d", 0, 15)}
	if diff := cmp.Diff([]string{"false true", "false true", "true true", "true true", "false true", "false false"}, got); diff != "" {
		t.Errorf("added (-want +got):\n%s", diff)
	}
	all := func(hints []*hint) (lines []string) {
		for _, h := range hints {
			lines = append(lines, fmt.Sprint(h.UserID, " ", h.ToldAt.Unix() > 0, " ", h.arrived.Unix()))
		}
		return lines
	}
	taken := s.take(2)
	if h := taken[0]; !h.ToldAt.Equal(at(5)) {
		t.Errorf("an earlier event replaced a later one: %v", h.ToldAt)
	}
	if diff := cmp.Diff([]string{"a true 10", "b true 11"}, all(taken)); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	s.putOff(taken[0], at(20))
	if add("b", 0, 16) != "false true" || add("d", 0, 16) != "false false" {
		t.Error("what is put off must count")
	}
	if left := s.back(taken[1:]); left != 1 {
		t.Errorf("%d hints were left out, want b, of which there is another", left)
	}
	if s.ripen(at(19)) != 0 || s.size() != 3 {
		t.Error("a hint was due early")
	}
	s.ripen(at(20))
	if diff := cmp.Diff([]string{"c false 14", "b false 16", "a true 10"}, all(s.take(9))); diff != "" {
		t.Errorf("taken at last (-want +got):\n%s", diff)
	}
	if s.size() != 0 || s.clear() != 0 || r.users.Load() != 0 {
		t.Error("something is left")
	}
}

// TestAnnounced: logouts are forgotten in time, when another hook comes, and when they are
// too many.
func TestAnnounced(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	a := newAnnounced(8)
	a.note("a", true, now)
	a.note("b", true, now)
	a.note("b", false, now)
	if !a.logout("a", now.Add(announcedFor-time.Second)) || a.logout("b", now) || a.logout("c", now) {
		t.Error("the newest hook does not count")
	}
	if !a.logout("a", now.Add(announcedFor+time.Second)) || a.logout("a", now.Add(3*announcedFor)) {
		t.Error("a logout is forgotten too early or too late")
	}
	now = now.Add(time.Hour)
	for i := range 100 {
		a.note(fmt.Sprint(i), true, now)
		if n := len(a.now) + len(a.before); n > 8 {
			t.Fatalf("%d users are kept", n)
		}
	}
	if !a.logout("99", now) || a.logout("90", now) {
		t.Error("the oldest must go first")
	}
	if (*announced)(nil).logout("a", now) {
		t.Error("without hooks none is announced")
	}
}
