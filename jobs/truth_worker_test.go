package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/repo"
)

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
	hasBadCall   = "has a call in which all users are offline"
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

	asking  func() // if not nil, called before the first question of a page
	page    *simPage
	pages   int
	owed    int           // calls that the page takes besides those made
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
	opinions map[string]told // the second ones
	rejected []string
	askedAt  map[string]time.Time // of those who were rejected
	calls    int64
}

// engineOf makes an engine of a process whose API is api; it is never started.
func (tr *trial) engineOf(process int, api presenceAPI, log zerolog.Logger) *Engine {
	tr.t.Helper()
	config := tr.config
	config.Log, config.Metrics = log, NewMetrics(prometheus.NewRegistry())
	config.CollapseRatio, config.CollapseMin, config.CollapseDelay = 0.5, 2, time.Microsecond
	config.HintShare, config.HintsPending = 1, 100
	e, err := New(tr.stores[process], []*App{{App: tr.app, Presence: api, Accounts: noAccounts{}, Users: tr.lab.users}}, config)
	if err != nil {
		tr.t.Fatal(err)
	}
	// One page at a time, so that a trial goes the same way each time.
	e.lanes[queueName(tr.app.ID, imclient.KindPresence)].slots = make(chan struct{}, 1)
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
	var unsaved tally
	_, err := e.lane(w.claimed.Run).kind.sweep(ctx, e.workers, w.claimed, &unsaved)
	if err == nil {
		err = finish(ctx, "")
	}
	if errors.Is(err, repo.ErrUnreconciled) {
		if err = e.workers.reconcile(ctx, w.claimed); err == nil {
			err = finish(ctx, "")
		}
	}
	w.err = err
	if imclient.ClassOf(err) == imclient.ClassFatal && w.run.owns(w) {
		w.run.calls += w.page.calls
	}
	_ = e.workers.settle(ctx, outcome{
		run: w.claimed.Run, rangeNo: w.claimed.No, err: err,
		release: func(ctx context.Context, reason string) error {
			return e.store.ReleaseRange(ctx, w.claimed, reason, unsaved.made)
		},
	})
}

// Run is called for each line of the log: a page was written, or set aside.
func (w *worker) Run(_ *zerolog.Event, _ zerolog.Level, message string) {
	switch message {
	case "page written":
		w.trial.note(w)
	case "page not written":
		w.trial.noteSuspect(w)
	default:
		return
	}
	w.written <- struct{}{}
}

func (w *worker) MaxPresenceBatch() int { return 1000 }

// QueryPresence tells of each user the truth at some instant between question
// and answer.
func (w *worker) QueryPresence(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	tr := w.trial
	if w.owed == 0 {
		w.owed = 1
		if w.page != nil {
			select { // the page before comes first
			case <-w.written:
			case <-ctx.Done():
				return imclient.Answer[imclient.Presence]{}, ctx.Err()
			}
		}
		if w.asking != nil {
			w.asking()
		}
		w.page = &simPage{ids: ids, answers: map[string]told{}, opinions: map[string]told{}, askedAt: map[string]time.Time{}}
		w.pages++
	}
	w.page.calls++
	w.owed--
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
				w.page.askedAt[id] = answer.AskedAt
			} else {
				w.owed += 2
			}
			return answer, &imclient.Error{Provider: imclient.ProviderTencent, Class: imclient.ClassBadBatch, Code: "90001"}
		}
	}
	for _, id := range ids {
		u := tr.users[id]
		if u.rejected {
			answer.Rejected = append(answer.Rejected, imclient.UserError{UserID: id, Code: "70107"})
			w.page.rejected = append(w.page.rejected, id)
			w.page.askedAt[id] = answer.AskedAt
			continue
		}
		instant := answer.AskedAt.Add(time.Duration(portion(id, answer.AskedAt) * float64(answer.AnsweredAt.Sub(answer.AskedAt))))
		truth := u.truth(tr.begin, instant)
		value := truth
		if u.lost || w.fate.what == hasBadCall && w.pages == w.fate.page {
			value = offline
		}
		answer.Observed = append(answer.Observed, imclient.Observed[imclient.Presence]{UserID: id, Value: value})
		w.page.answers[id] = told{value: value, asked: answer.AskedAt, instant: instant, lie: value != truth, run: w.run.id}
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

// QueryStatus is the second opinion, which is wrong in ways of its own.
func (w *worker) QueryStatus(_ context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	tr := w.trial
	w.page.calls++
	answer := imclient.Answer[imclient.Presence]{AskedAt: tr.clock.Now(), Calls: 1}
	tr.clock.pass(w.latency)
	answer.AnsweredAt = tr.clock.Now()
	for _, id := range ids {
		u := tr.users[id]
		truth := u.truth(tr.begin, answer.AnsweredAt)
		value := truth
		switch {
		case tr.redisEmpty:
			value = offline
		case u.stale && value == offline:
			value = onlineIOS
		}
		answer.Observed = append(answer.Observed, imclient.Observed[imclient.Presence]{UserID: id, Value: value})
		w.page.opinions[id] = told{value: value, answered: answer.AnsweredAt, instant: answer.AnsweredAt, lie: value != truth}
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
