package jobs

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/repo"
	"syncer/repo/userstable"
)

// simClock is the simulated time. Each look at it takes a microsecond, so that
// no two events have the same time.
type simClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *simClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(time.Microsecond)
	return c.at
}

func (c *simClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// lab is a database with two processes on it, in simulated time. Many trials
// take place in it, one after the other, each with an app of its own.
type lab struct {
	db     *pgxpool.Pool
	clock  *simClock
	stores [2]*repo.Store
	users  *userstable.Table
	trials int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	ctx := t.Context()
	url := pgtest.Template(t, "jobs", migrate)
	l := &lab{clock: &simClock{}}
	var err error
	if l.db, err = pgxpool.New(ctx, url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.db.Close)
	if _, err := l.db.Exec(ctx, `CREATE TABLE public.users (id bigint PRIMARY KEY, uid text)`); err != nil {
		t.Fatal(err)
	}
	for i := range l.stores {
		l.stores[i], err = repo.Open(ctx, pg.Config{URL: url, Schema: "syncer", MaxConns: 4, Process: fmt.Sprint("process-", i+1), Now: l.clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.stores[i].Close)
	}
	l.users, err = userstable.Open(ctx, userstable.Config{URL: url, Table: []string{"public", "users"}, KeyColumn: "id", UserID: "uid"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.users.Close)
	return l
}

// simT is a test, or one case of a property test.
type simT interface {
	rapid.TB
	Cleanup(func())
}

// trial is one history from its beginning to its end: what truly happened, and
// what the written pages said of it.
type trial struct {
	*lab
	t        simT
	ctx      context.Context
	app      repo.App
	begin    time.Time
	config   Config
	badBatch bool // users are rejected by refusing their whole batch

	redisEmpty bool // the second opinion calls all users offline, at present

	users     map[string]*simUser
	runs      map[int64]*simRun
	completed []*simRun // in the order in which they were closed
	sleepers  []*worker
	frozen    []*asker // with an answer
	askers    int
	hintRuns  map[int64]hintCount
	pulled    time.Time // up to here users who left or lapsed are known
	wrong     []string  // what was seen to be wrong on the way
}

// simStart is when all trials begin.
var simStart = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func (l *lab) trial(t simT) *trial {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l.clock.at = simStart
	l.trials++
	tr := &trial{lab: l, t: t, ctx: ctx, begin: simStart, users: map[string]*simUser{}, runs: map[int64]*simRun{}, hintRuns: map[int64]hintCount{}, pulled: simStart}
	tr.config = Config{RangeUsers: 3, PageUsers: 2, Workers: 1, RescueAfter: 90 * time.Second, RemovalRatio: 1, Partition: "month"}
	t.Cleanup(func() {
		cancel()
		for _, w := range tr.sleepers {
			close(w.wake)
			<-w.ended
		}
		for _, a := range tr.frozen {
			close(a.wake)
			<-a.ended
		}
	})
	tr.exec(`TRUNCATE public.users`)
	var err error
	if tr.app, err = l.stores[0].EnsureApp(ctx, fmt.Sprint("trial ", l.trials), imclient.ProviderTencent, "trial"); err != nil {
		t.Fatal(err)
	}
	return tr
}

func (tr *trial) exec(sql string, args ...any) {
	tr.t.Helper()
	if _, err := tr.db.Exec(tr.ctx, sql, args...); err != nil {
		tr.t.Fatalf("%s: %v", sql, err)
	}
}

// say tells the story of a trial that fails.
func (tr *trial) say(format string, args ...any) {
	tr.t.Logf("%s %s", stamp(tr.clock.at), fmt.Sprintf(format, args...))
}

// stamp is a time of a trial, as it is shown.
func stamp(at time.Time) string {
	return fmt.Sprintf("%d+%s", at.YearDay()-simStart.YearDay(), at.UTC().Format("15:04:05.000000"))
}

// turn is a value that a user keeps for some time.
type turn struct {
	For   time.Duration
	Value imclient.Presence
}

// GoString shows what rapid drew.
func (t turn) GoString() string { return fmt.Sprintf("%s for %s", spell(t.Value), t.For) }

type span struct{ from, to time.Time }

// simUser is a user: what is true, and what is said.
type simUser struct {
	id       string
	turns    []turn // again and again
	key      int64
	twin     int64  // key of a second row of the user, most often on another page; 0: none
	inside   []span // when the user was in the users table; to is zero while in it
	rejected bool   // by the API, at present
	lost     bool   // the API does not reach the user's gateway, and calls the user offline
	stale    bool   // Redis keeps the user: the second opinion never calls the user offline

	told []told // by written pages
	want []simRow
	life *life    // the snapshot that there should be
	fail *failing // the user_failure row that there should be
}

// GoString names the user where rapid shows what it drew.
func (u *simUser) GoString() string { return u.id }

// told is an answer that was written.
type told struct {
	value           imclient.Presence
	asked, answered time.Time
	instant         time.Time // when it was true
	lie             bool      // it was not
	run             int64
}

// life is a user's known value.
type life struct {
	told
	since      time.Time
	sinceAfter *time.Time
	toldAt     *time.Time    // since, by a hook
	lastOnline *[2]time.Time // bracket of the end of the last stretch online; nil while online, or if there was none
	missed     bool          // by a complete run, since somebody looked last
}

type failing struct {
	contradicted bool // else the API rejects the user
	knownAt      time.Time
	last         time.Time // recorded
}

// truth is the user's value at a time.
func (u *simUser) truth(begin, at time.Time) imclient.Presence {
	var cycle time.Duration
	for _, turn := range u.turns {
		cycle += turn.For
	}
	left := at.Sub(begin) % cycle
	for _, turn := range u.turns {
		if left < turn.For {
			return turn.Value
		}
		left -= turn.For
	}
	panic("unreachable")
}

// insideAt tells whether the user was in the users table at a time.
func (u *simUser) insideAt(at time.Time) bool { return u.insideIn(at, at) }

// insideIn tells whether the user was in the users table at some time of a stretch.
func (u *simUser) insideIn(from, to time.Time) bool {
	return slices.ContainsFunc(u.inside, func(s span) bool {
		return !s.from.After(to) && (s.to.IsZero() || s.to.After(from))
	})
}

func (u *simUser) isInside() bool { return len(u.inside) > 0 && u.inside[len(u.inside)-1].to.IsZero() }

func (tr *trial) join(u *simUser, key int64) {
	tr.t.Helper()
	tr.users[u.id] = u
	u.key = key
	tr.exec(`INSERT INTO public.users VALUES ($1, $2)`, key, u.id)
	if u.twin != 0 {
		tr.exec(`INSERT INTO public.users VALUES ($1, $2)`, u.twin, u.id)
	}
	u.inside = append(u.inside, span{from: tr.clock.Now()})
	tr.say("%s joins the users table with keys %d and %d: %#v", u.id, key, u.twin, u.turns)
}

func (tr *trial) leave(u *simUser) {
	tr.t.Helper()
	tr.exec(`DELETE FROM public.users WHERE uid = $1`, u.id)
	u.inside[len(u.inside)-1].to = tr.clock.Now()
	tr.say("%s leaves the users table", u.id)
}
