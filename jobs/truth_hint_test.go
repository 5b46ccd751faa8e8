package jobs

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"syncer/imclient"
	"syncer/repo"
)

// asker is a process's second asker: it looks at users whom hooks name, beside the sweeps.
type asker struct {
	*worker
	hinter *Hinter
	hooks  map[string]imclient.Hook
	loaded map[string]loaded // what was known before the question
	before time.Time         // start of the newest complete run then
}

// loaded is what was known of a user.
type loaded struct {
	life *life
	fail *failing
}

// hintCount is what a hint run should have counted.
type hintCount struct{ users, changed, calls int64 }

// drawHints lets hooks name users, truly, falsely, twice or late, and a process look at
// them.
func (tr *trial) drawHints(t *rapid.T) {
	f := fate{what: rapid.SampledFrom([]string{goesThrough, goesThrough, freezes, meetsOutage}).Draw(t, "fate"), page: 1}
	f.late = f.what == freezes && rapid.Bool().Draw(t, "late")
	a := tr.asker(drawProcess(t), latencies.Draw(t, "latency"), f)
	var hooks []imclient.Hook
	for _, u := range rapid.SliceOfNDistinct(rapid.SampledFrom(tr.sorted()), 1, min(len(tr.users), tr.config.PageUsers-1), (*simUser).GoString).Draw(t, "users") {
		hooks = append(hooks, tr.drawHook(t, u))
	}
	if rapid.Bool().Draw(t, "of a stranger too") {
		hooks = append(hooks, imclient.Hook{UserID: "stranger", State: imclient.StateOnline, ToldAt: tr.clock.at})
	}
	for _, hook := range hooks {
		a.hooks[hook.UserID] = hook
		tr.say("%s hears of %s: %s on %s, logout %t, told %s", a.name, hook.UserID, hook.State, hook.Platform, hook.Logout, stamp(hook.ToldAt))
	}
	if rapid.Bool().Draw(t, "doubled") {
		a.hinter.Tell(hooks, tr.clock.Now())
	}
	a.hinter.Tell(hooks, tr.clock.Now())
	tr.lookAt(a)
	if len(a.hinter.waiting.later) > 0 && a.fate.what == goesThrough && rapid.Bool().Draw(t, "again") {
		tr.clock.pass(contradictedFor)
		tr.lookAt(a)
	}
}

// drawHook draws a hook about a user: the last event that truly happened, or anything.
func (tr *trial) drawHook(t *rapid.T, u *simUser) imclient.Hook {
	if rapid.Bool().Draw(t, "forged") {
		return imclient.Hook{
			UserID: u.id, State: rapid.SampledFrom([]imclient.State{imclient.StateUnknown, imclient.StateOnline, imclient.StateOffline}).Draw(t, "state"),
			Platform: rapid.SampledFrom([]imclient.Platform{imclient.PlatformUnknown, imclient.PlatformIOS, imclient.PlatformWeb}).Draw(t, "platform"),
			Logout:   rapid.Bool().Draw(t, "logout"),
			ToldAt:   tr.clock.at.Add(rapid.SampledFrom([]time.Duration{-2 * time.Hour, -time.Minute, -time.Second, 0, time.Hour}).Draw(t, "told")),
		}
	}
	value := u.truth(tr.begin, tr.clock.at)
	since := tr.clock.at
	for since.After(tr.begin) && u.truth(tr.begin, since.Add(-time.Second)) == value && tr.clock.at.Sub(since) < 2*time.Hour {
		since = since.Add(-time.Second)
	}
	hook := imclient.Hook{UserID: u.id, State: value.State, Logout: value.State != imclient.StateOnline, ToldAt: since}
	for platform, mode := range value.Platforms {
		if mode != imclient.ModeNone {
			hook.Platform = imclient.Platform(platform)
		}
	}
	return hook
}

func (tr *trial) asker(process int, latency time.Duration, f fate) *asker {
	tr.t.Helper()
	w := &worker{
		trial: tr, name: fmt.Sprintf("asker %d of process %d", tr.askers, process+1), run: &simRun{}, fate: f, latency: latency,
		store: tr.stores[process], written: make(chan struct{}, 1), stuck: make(chan struct{}), wake: make(chan struct{}),
	}
	tr.askers++
	a := &asker{worker: w, hooks: map[string]imclient.Hook{}}
	w.asking = func() {
		a.loaded, a.before = map[string]loaded{}, time.Time{}
		for id, u := range tr.users {
			var l loaded
			if u.life != nil {
				l.life = new(*u.life)
			}
			if u.fail != nil {
				l.fail = new(*u.fail)
			}
			a.loaded[id] = l
		}
		for _, run := range tr.completed {
			a.before = later(a.before, run.start)
		}
	}
	w.engine = tr.engineOf(process, w, zerolog.New(io.Discard))
	a.hinter = w.engine.Hints(tr.app.ID)
	return a
}

// lookAt lets an asker look once, until it is done or freezes.
func (tr *trial) lookAt(a *asker) {
	tr.t.Helper()
	a.ended = make(chan struct{})
	a.page, a.loaded = nil, nil
	go func() {
		defer close(a.ended)
		_, a.err = a.hinter.Look(tr.ctx)
	}()
	tr.watchAsker(a)
}

func (tr *trial) watchAsker(a *asker) {
	tr.t.Helper()
	select {
	case <-a.stuck:
		tr.say("%s freezes with an answer", a.name)
		tr.frozen = append(tr.frozen, a)
	case <-a.ended:
		tr.noteHints(a)
	}
	tr.look()
}

// wakeAsker lets a frozen asker go on.
func (tr *trial) wakeAsker(i int) {
	tr.t.Helper()
	a := tr.frozen[i]
	tr.frozen = slices.Delete(tr.frozen, i, i+1)
	tr.say("%s wakes up", a.name)
	close(a.wake)
	tr.watchAsker(a)
}

func (tr *trial) drawWakeAsker(t *rapid.T) {
	if len(tr.frozen) == 0 {
		t.Skip("no asker is frozen")
	}
	tr.wakeAsker(rapid.IntRange(0, len(tr.frozen)-1).Draw(t, "asker"))
}

// hintedChange is a change that an asker's answer leads to, if nothing has overtaken it.
type hintedChange struct {
	u      *simUser
	answer told
	from   time.Time // not_before
}

// noteHints notes what an asker has written.
func (tr *trial) noteHints(a *asker) {
	tr.t.Helper()
	if a.fate.what == meetsOutage {
		if a.page != nil && a.err == nil {
			tr.wrong = append(tr.wrong, a.name+" does not say that the API is out of order")
		}
		return
	}
	if a.err != nil {
		tr.t.Fatalf("%s: %v", a.name, a.err)
	}
	if a.page == nil {
		tr.say("%s has no user to ask about", a.name)
		return
	}
	isSuspect := tr.suspects(a.page, func(id string) *life { return a.loaded[id].life }, func(id string) bool { return a.hooks[id].Logout })
	var changes []hintedChange
	for _, u := range tr.sorted() {
		answer, ok := a.page.answers[u.id]
		if !ok {
			continue
		}
		l := a.loaded[u.id]
		if l.life == nil {
			tr.wrong = append(tr.wrong, fmt.Sprintf("%s has asked about %s, who has no snapshot", a.name, u.id))
			continue
		}
		if opinion, asked := a.page.opinions[u.id]; asked {
			if answer.value == offline && opinion.value != offline {
				continue
			}
			answer = settledWith(l.life.value.Platforms, answer, opinion)
		}
		u.told = append(u.told, answer)
		if answer.value != l.life.value {
			changes = append(changes, hintedChange{u, answer, knownSince(l.life, l.fail, a.before)})
		}
	}
	if isSuspect {
		tr.say("%s does not write what is suspect", a.name)
		changes = nil
	}
	if len(changes) > 0 {
		first := slices.MinFunc(changes, func(x, y hintedChange) int { return x.answer.answered.Compare(y.answer.answered) }).answer.answered
		for _, run := range tr.runs {
			if !run.start.Before(first) {
				tr.say("%s is overtaken by run %d", a.name, run.id)
				return
			}
		}
	}
	run := a.hinter.run.ID
	count := tr.hintRuns[run]
	count.users += int64(len(a.page.ids))
	count.calls += a.page.calls
	for _, c := range changes {
		old := c.u.life
		if old == nil || !old.answered.Equal(a.loaded[c.u.id].life.answered) || old.answered.After(c.answer.asked) {
			tr.say("%s is overtaken: %s", a.name, c.u.id)
			continue
		}
		count.changed++
		tr.say("%s has written that %s was %s at %s", a.name, c.u.id, spell(c.answer.value), stamp(c.answer.instant))
		row := tr.endsFrom(c.u, c.from, run, c.answer.answered, spell(c.answer.value))
		h := hint{Hook: a.hooks[c.u.id]}
		if at := h.told(c.answer.value); at.After(row.bracket[0]) && !at.After(row.bracket[1]) {
			row.toldAt = new(at)
			c.u.want[len(c.u.want)-1].toldAt = row.toldAt
		}
		c.answer.run = run
		c.u.changes(c.answer, row, row.toldAt)
	}
	tr.hintRuns[run] = count
}

func (tr *trial) wantHintRuns() (lines []string) {
	ids := make([]int64, 0, len(tr.hintRuns))
	for id := range tr.hintRuns {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		c := tr.hintRuns[id]
		lines = append(lines, line(id, repo.RunSucceeded, false, c.users, c.changed, c.calls))
	}
	return lines
}

// wakeAll lets all frozen askers go on.
func (tr *trial) wakeAll() {
	slices.SortFunc(tr.frozen, func(a, b *asker) int { return cmp.Compare(a.name, b.name) })
	for len(tr.frozen) > 0 {
		tr.wakeAsker(0)
	}
}
