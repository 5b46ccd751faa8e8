package web

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"syncer/internal/dev/pgtest"
	"syncer/repo/reports"
)

// TestLookups holds that requests share statements while others are under way, that each
// gets its own users, of its own app, and that one that is given up harms no other.
func TestLookups(t *testing.T) {
	type statement struct {
		app   int16
		users []string
	}
	var mu sync.Mutex
	var statements []statement
	release := make(chan struct{})
	broken := errors.New("broken")
	l := &lookups{read: func(_ context.Context, app reports.Observed, users []string) ([]reports.PresenceRow, error) {
		mu.Lock()
		statements = append(statements, statement{app.AppID, slices.Clone(users)})
		mu.Unlock()
		<-release
		if slices.Contains(users, "c") {
			return nil, broken
		}
		var rows []reports.PresenceRow
		for _, user := range users {
			rows = append(rows, reports.PresenceRow{UserID: user, State: fmt.Sprint(app.AppID)})
		}
		return rows, nil
	}}
	var all sync.WaitGroup
	ask := func(app int16, want error, users ...string) {
		all.Go(func() {
			known, err := l.get(t.Context(), reports.Observed{AppID: app}, users)
			if !errors.Is(err, want) {
				t.Errorf("%v: %v, want %v", users, err, want)
			}
			for _, user := range users {
				if want == nil && (known[user] == nil || known[user].State != fmt.Sprint(app)) {
					t.Errorf("%s of app %d: %v", user, app, known[user])
				}
			}
		})
	}
	waiting := func(groups, users int) {
		t.Helper()
		pgtest.Await(t, fmt.Sprintf("%d users wait in %d groups", users, groups), func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			n := 0
			for _, g := range l.waiting {
				n += len(g.users)
			}
			return l.inFlight == maxInFlight && len(l.waiting) == groups && n == users
		})
	}
	ask(1, nil, "a")
	pgtest.Await(t, "the first is under way", func() bool { mu.Lock(); defer mu.Unlock(); return len(statements) == 1 })
	ask(1, nil, "b")
	waiting(0, 0)
	ask(1, broken, "c")
	waiting(1, 1)
	ask(1, broken, "d", "e")
	waiting(1, 3)
	given, giveUp := context.WithCancel(t.Context())
	all.Go(func() {
		if _, err := l.get(given, reports.Observed{AppID: 1}, []string{"f"}); !errors.Is(err, context.Canceled) {
			t.Errorf("a request that was given up: %v", err)
		}
	})
	waiting(1, 4)
	giveUp()
	ask(2, nil, "a")
	waiting(2, 5)
	big := make([]string, maxUsers)
	for i := range big {
		big[i] = fmt.Sprint("u", i)
	}
	ask(1, nil, big...) // does not wait
	pgtest.Await(t, "the many are under way", func() bool { mu.Lock(); defer mu.Unlock(); return len(statements) == 3 })
	for range 5 {
		release <- struct{}{}
	}
	all.Wait()
	if len(statements) != 5 {
		t.Errorf("%d statements, want 5: %v", len(statements), statements)
	}
}
