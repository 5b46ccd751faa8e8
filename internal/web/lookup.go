package web

import (
	"context"
	"sync"

	"syncer/repo/reports"
)

const (
	// maxInFlight is how many statements for gathered users are under way at once. The
	// pool has more connections.
	maxInFlight = 2
	// maxGathered is the largest request that shares a statement: a larger one has
	// nothing to gain.
	maxGathered = 50
)

// lookups looks users up in Postgres. While maxInFlight statements are under way, further
// users of an app gather, and the next statement is about all of them: under load that is
// many users for the price of one. Safe for concurrent use.
type lookups struct {
	read func(ctx context.Context, app reports.Observed, users []string) ([]reports.PresenceRow, error)

	mu       sync.Mutex
	inFlight int
	waiting  []*group // in the order in which they are to be read
}

// group is the users of one statement.
type group struct {
	app   reports.Observed
	users []string
	done  chan struct{} // is closed once what follows is set
	known map[string]*reports.PresenceRow
	err   error
}

// get returns what is known of some users of an app, by user. It may be about others,
// too.
func (l *lookups) get(ctx context.Context, app reports.Observed, users []string) (map[string]*reports.PresenceRow, error) {
	if len(users) > maxGathered {
		rows, err := l.read(ctx, app, users)
		return byUser(rows), err
	}
	g := l.join(app, users)
	select {
	case <-g.done:
		return g.known, g.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join adds the users to a waiting group, or to a new one, which is read at once if few
// are under way.
func (l *lookups) join(app reports.Observed, users []string) *group {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.waiting {
		if g.app.AppID == app.AppID && len(g.users)+len(users) <= maxUsers {
			g.users = append(g.users, users...)
			return g
		}
	}
	g := &group{app: app, users: append([]string(nil), users...), done: make(chan struct{})}
	if l.inFlight < maxInFlight {
		l.inFlight++
		go l.work(g)
	} else {
		l.waiting = append(l.waiting, g)
	}
	return g
}

// work reads a group, and then those that wait.
func (l *lookups) work(g *group) {
	for g != nil {
		l.readGroup(g)
		l.mu.Lock()
		g = nil
		if len(l.waiting) > 0 {
			g, l.waiting = l.waiting[0], l.waiting[1:]
		} else {
			l.inFlight--
		}
		l.mu.Unlock()
	}
}

func (l *lookups) readGroup(g *group) {
	defer close(g.done)
	// Not a caller's context: others wait for the same statement.
	ctx, cancel := context.WithTimeout(context.Background(), ReadTimeout)
	defer cancel()
	rows, err := l.read(ctx, g.app, g.users)
	if err != nil {
		g.err = err
		return
	}
	g.known = byUser(rows)
}

func byUser(rows []reports.PresenceRow) map[string]*reports.PresenceRow {
	known := make(map[string]*reports.PresenceRow, len(rows))
	for i := range rows {
		known[rows[i].UserID] = &rows[i]
	}
	return known
}
