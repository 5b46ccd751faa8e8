package main

import (
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"syncer/repo"
)

// TestPace_line holds what a line of progress shows at each width of a terminal.
func TestPace_line(t *testing.T) {
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	// Resumed when 200,000 users were done.
	m := newMeter(repo.Run{Counters: repo.Counters{Users: 200_000, Calls: 400}}, began)
	now := repo.Run{Counters: repo.Counters{Users: 300_000, Calls: 600}}
	p := m.pace("main presence", now, 1_000_000, 180, began.Add(2*time.Second))
	for _, test := range []struct {
		width int
		want  string
	}{
		{40, "main presence  30%  50,000 users/s"},
		{48, "main presence  30%  50,000 users/s  14s left"},
		{68, "main presence  30%  50,000 users/s  100 of 180 calls/s  14s left"},
		{80, "main presence  ████░░░░░░░░░░  30%  50,000 users/s  100 of 180 calls/s  14s left"},
		{92, "main presence  30%  300,000 of 1,000,000 users  50,000 users/s  100 of 180 calls/s  14s left"},
		{130, "main presence  █████████░░░░░░░░░░░░░░░░░░░░░  30%  300,000 of 1,000,000 users  50,000 users/s  100 of 180 calls/s  14s left"},
	} {
		if diff := cmp.Diff(test.want, p.line(test.width)); diff != "" {
			t.Errorf("at %d columns (-want +got):\n%s", test.width, diff)
		}
	}
	if diff := cmp.Diff("main presence: 300,000 of 1,000,000 users (30%), 50,000 users/s, 100 of 180 calls/s, 14s left", p.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPace_fits holds that no line is wider than the terminal, whatever is counted.
func TestPace_fits(t *testing.T) {
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for _, name := range []string{"a presence", "an-app-with-a-name-as-long-as-names-may-be presence (suspect pages are rechecked)"} {
		for _, total := range []int64{0, 1, 10_000_000_000} {
			for _, users := range []int64{0, 1, 9_999_999_999} {
				p := newMeter(repo.Run{}, began).pace(name, repo.Run{Counters: repo.Counters{Users: users, Calls: users}}, total, 10_000, began.Add(time.Second))
				for width := 40; width <= 200; width++ {
					if n := utf8.RuneCountInString(p.line(width)); n > width {
						t.Fatalf("%d columns at a width of %d: %s", n, width, p.line(width))
					}
				}
			}
		}
	}
}
