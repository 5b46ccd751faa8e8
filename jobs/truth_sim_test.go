package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"syncer/imclient"
	"syncer/internal/pgtest"
	"syncer/repo"
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
	users  *repo.Users
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
		l.stores[i], err = repo.Open(ctx, repo.Config{URL: url, Schema: "syncer", MaxConns: 4, Process: fmt.Sprint("process-", i+1), Now: l.clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.stores[i].Close)
	}
	l.users, err = repo.OpenUsers(ctx, repo.UsersConfig{URL: url, Table: []string{"public", "users"}, KeyColumn: "id", UserID: "uid"})
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

	users     map[string]*simUser
	runs      map[int64]*simRun
	completed []*simRun // in the order in which they were closed
	sleepers  []*worker
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
	tr := &trial{lab: l, t: t, ctx: ctx, begin: simStart, users: map[string]*simUser{}, runs: map[int64]*simRun{}, pulled: simStart}
	tr.config = Config{RangeUsers: 3, PageUsers: 2, Workers: 1, RescueAfter: 90 * time.Second, Partition: "month"}
	t.Cleanup(func() {
		cancel()
		for _, w := range tr.sleepers {
			close(w.wake)
			<-w.ended
		}
	})
	tr.exec(`TRUNCATE public.users`)
	var err error
	if tr.app, err = l.stores[0].EnsureApp(ctx, fmt.Sprint("trial ", l.trials), imclient.ProviderTencent); err != nil {
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
	inside   []span // when the user was in the users table; to is zero while in it
	rejected bool   // by the API, at present

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
	run             int64
}

// life is a user's known value.
type life struct {
	told
	since      time.Time
	sinceAfter *time.Time
	missed     bool // by a complete run, since somebody looked last
}

type failing struct {
	knownAt time.Time
	last    time.Time
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
	u.inside = append(u.inside, span{from: tr.clock.Now()})
	tr.say("%s joins the users table with key %d: %#v", u.id, key, u.turns)
}

func (tr *trial) leave(u *simUser) {
	tr.t.Helper()
	tr.exec(`DELETE FROM public.users WHERE uid = $1`, u.id)
	u.inside[len(u.inside)-1].to = tr.clock.Now()
	tr.say("%s leaves the users table", u.id)
}

// fate is what becomes of a worker.
type fate struct {
	what   string // see below
	page   int    // at which it happens, from 1
	silent bool   // its process gives no sign of life either
	late   bool   // the answer counts as arrived when the worker wakes up
}

const (
	goesThrough  = "goes through"
	freezes      = "freezes with an answered page"
	meetsOutage  = "meets an outage of the API"
	losesItsLast = "loses the database when it finishes"
)

// worker sweeps one range as rangeWorker does. It is the API too.
type worker struct {
	trial   *trial
	name    string
	store   *repo.Store
	engine  *Engine
	claimed *repo.Range
	run     *simRun
	fate    fate
	latency time.Duration

	page    *simPage
	pages   int
	written chan struct{} // a page was
	stuck   chan struct{}
	wake    chan struct{}
	ended   chan struct{}
	err     error
}

// simPage is a page that was asked about.
type simPage struct {
	ids      []string
	answers  map[string]told
	rejected []string
	calls    int64
}

// engineOf makes an engine of a process whose API is api; it is never started.
func (tr *trial) engineOf(process int, api presenceAPI, log zerolog.Logger) *Engine {
	tr.t.Helper()
	config := tr.config
	config.Log, config.CollapseRatio, config.Metrics = log, 1, NewMetrics(prometheus.NewRegistry())
	e, err := New(tr.stores[process], []*App{{App: tr.app, Presence: api, Accounts: noAccounts{}, Users: tr.lab.users}}, config)
	if err != nil {
		tr.t.Fatal(err)
	}
	// One page at a time, so that a trial goes the same way each time.
	e.asking[queueName(tr.app.ID, imclient.KindPresence)] = make(chan struct{}, 1)
	return e
}

type noAccounts struct{}

func (noAccounts) CheckAccounts(context.Context, []string) (imclient.Answer[imclient.AccountStatus], error) {
	panic("nobody asks for accounts")
}

func (noAccounts) MaxAccountsBatch() int { return 100 }

// work lets a worker claim a range and sweep it, until it ends or freezes.
func (tr *trial) work(process int, run *simRun, rangeNo int, jobID int64, latency time.Duration, f fate) *worker {
	tr.t.Helper()
	w := &worker{
		trial: tr, name: fmt.Sprintf("worker %d.%d of process %d", run.id, rangeNo, process+1), run: run, fate: f, latency: latency,
		store: tr.stores[process], written: make(chan struct{}, 1), stuck: make(chan struct{}), wake: make(chan struct{}), ended: make(chan struct{}),
	}
	w.engine = tr.engineOf(process, w, zerolog.New(io.Discard).Hook(w))
	var err error
	w.claimed, err = w.store.ClaimRange(tr.ctx, run.id, rangeNo, jobID, w.engine.staleBefore())
	if errors.Is(err, repo.ErrHeld) {
		tr.say("%s finds its range held", w.name)
		return nil
	}
	if err != nil {
		tr.t.Fatal(err)
	}
	run.owners[rangeNo] = w
	tr.say("%s %s (page %d, silent %t, late %t); a call takes %s", w.name, f.what, f.page, f.silent, f.late, latency)
	go w.work()
	tr.watch(w)
	return w
}

// watch waits until a worker ends or freezes, and looks what has become of it.
func (tr *trial) watch(w *worker) {
	tr.t.Helper()
	select {
	case <-w.stuck:
		if w.fate.silent {
			w.claimed.Done()
		}
		tr.sleepers = append(tr.sleepers, w)
	case <-w.ended:
		tr.say("%s has ended: %v", w.name, w.err)
		if owned := w.run.owns(w); owned == errors.Is(w.err, repo.ErrGone) {
			tr.t.Fatalf("%s ended with %v, although it owns its range %t", w.name, w.err, owned)
		}
		if w.run.owns(w) {
			w.run.owners[w.claimed.No] = nil
		}
	}
	tr.look()
}

// wakeUp lets a frozen worker go on.
func (tr *trial) wakeUp(i int) {
	tr.t.Helper()
	w := tr.sleepers[i]
	tr.sleepers = slices.Delete(tr.sleepers, i, i+1)
	tr.say("%s wakes up", w.name)
	close(w.wake)
	tr.watch(w)
}

func (w *worker) work() {
	defer close(w.ended)
	defer w.claimed.Done()
	ctx, e := w.trial.ctx, w.engine
	finish := func(ctx context.Context, reason string) error {
		_, err := w.store.FinishRange(ctx, w.claimed, reason, func(pgx.Tx) error {
			if w.fate.what == losesItsLast {
				return errors.New("the database went away")
			}
			return nil
		})
		return err
	}
	unsaved, err := e.sweepRange(ctx, w.claimed)
	if err == nil {
		err = finish(ctx, "")
	}
	if errors.Is(err, repo.ErrUnreconciled) {
		if err = e.reconcile(ctx, w.claimed); err == nil {
			err = finish(ctx, "")
		}
	}
	w.err = err
	if imclient.ClassOf(err) == imclient.ClassFatal && w.run.owns(w) {
		w.run.calls += w.page.calls
	}
	_ = e.settle(ctx, outcome{
		run: w.claimed.Run, rangeNo: w.claimed.No, err: err,
		release: func(ctx context.Context, reason string) error {
			return e.store.ReleaseRange(ctx, w.claimed, reason, unsaved)
		},
	})
}

// Run is called for each line of the log: a page was written.
func (w *worker) Run(_ *zerolog.Event, _ zerolog.Level, message string) {
	if message == "page written" {
		w.trial.note(w)
		w.written <- struct{}{}
	}
}

func (w *worker) MaxPresenceBatch() int { return 1000 }

// QueryPresence tells of each user the truth at some instant between question
// and answer.
func (w *worker) QueryPresence(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	tr := w.trial
	if w.page == nil || !slices.Contains(w.page.ids, ids[0]) {
		if w.page != nil {
			select { // the page before comes first
			case <-w.written:
			case <-ctx.Done():
				return imclient.Answer[imclient.Presence]{}, ctx.Err()
			}
		}
		w.page = &simPage{ids: ids, answers: map[string]told{}}
		w.pages++
	}
	w.page.calls++
	answer := imclient.Answer[imclient.Presence]{AskedAt: tr.clock.Now(), Calls: 1}
	tr.clock.pass(w.latency)
	answer.AnsweredAt = tr.clock.Now()
	if w.fate.what == meetsOutage && w.pages == w.fate.page {
		return answer, &imclient.Error{Provider: imclient.ProviderTencent, Class: imclient.ClassFatal, Text: "out of order"}
	}
	for _, id := range ids {
		u := tr.users[id]
		if u.rejected && tr.badBatch {
			if len(ids) == 1 {
				w.page.rejected = append(w.page.rejected, id)
			}
			return answer, &imclient.Error{Provider: imclient.ProviderTencent, Class: imclient.ClassBadBatch, Code: "90001"}
		}
	}
	for _, id := range ids {
		u := tr.users[id]
		if u.rejected {
			answer.Rejected = append(answer.Rejected, imclient.UserError{UserID: id, Code: "70107"})
			w.page.rejected = append(w.page.rejected, id)
			continue
		}
		instant := answer.AskedAt.Add(time.Duration(portion(id, answer.AskedAt) * float64(answer.AnsweredAt.Sub(answer.AskedAt))))
		value := u.truth(tr.begin, instant)
		answer.Observed = append(answer.Observed, imclient.Observed[imclient.Presence]{UserID: id, Value: value})
		w.page.answers[id] = told{value: value, asked: answer.AskedAt, instant: instant, run: w.run.id}
	}
	if w.fate.what == freezes && w.pages == w.fate.page {
		w.stuck <- struct{}{}
		<-w.wake
		w.fate.what = goesThrough
		if w.fate.late {
			answer.AnsweredAt = tr.clock.Now()
		}
	}
	for _, o := range answer.Observed {
		a := w.page.answers[o.UserID]
		a.answered = answer.AnsweredAt
		w.page.answers[o.UserID] = a
	}
	return answer, nil
}

// portion is a number in [0,1) that looks random.
func portion(id string, at time.Time) float64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(id + at.String()) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	return float64(h>>11) / (1 << 53)
}

var nobodyListens = zerolog.Nop()
