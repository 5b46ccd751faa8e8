package jobs

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
	"syncer/repo"
)

// mistakes are places in the program that panic, each once. The clock, which all
// parts read, looks from where it is read.
type mistakes struct {
	mu   sync.Mutex
	left map[string]bool // functions, as a stack names them
	// at has the place of each address of a stack that was met, "" for none: naming the
	// functions of each stack would make the clock so slow that every call is late.
	at map[uintptr]string
}

func (m *mistakes) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.left) == 0 {
		return time.Now().UTC()
	}
	var callers [64]uintptr
	for _, address := range callers[:runtime.Callers(2, callers[:])] {
		place, met := m.at[address]
		if !met {
			place = m.placeOf(address)
			m.at[address] = place
		}
		if m.left[place] {
			delete(m.left, place)
			panic("a mistake in " + place)
		}
	}
	return time.Now().UTC()
}

// placeOf returns the place that an address of a stack is in, "" if it is in none.
func (m *mistakes) placeOf(address uintptr) string {
	frames := runtime.CallersFrames([]uintptr{address})
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		for place := range m.left {
			if strings.HasSuffix(strings.ReplaceAll(frame.Function, "[...]", ""), place) {
				return place
			}
		}
	}
	return ""
}

func (m *mistakes) make(places ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left, m.at = make(map[string]bool), make(map[uintptr]string)
	for _, place := range places {
		m.left[place] = true
	}
}

func (m *mistakes) toCome() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.left))
}

// afterwards is a client whose answers may come with a mistake.
type afterwards struct {
	presenceAPI
	mistakes *mistakes
}

func (a *afterwards) QueryPresence(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	answer, err := a.presenceAPI.QueryPresence(ctx, ids)
	a.mistakes.now()
	return answer, err
}

// TestPanics: a panic, wherever in the engine, is told once with its stack. What it
// came from is tried again, the engine and the run go on, and nothing is lost.
func TestPanics(t *testing.T) {
	t.Parallel()
	const users = 600
	w := setup(t, worldOptions{users: users, change: 0.5})
	w.rounds.AccountShare = 0 // nobody fails
	m := &mistakes{}
	s := w.spec()
	s.Providers = []imclient.Provider{tencentApp}
	s.Range, s.Page, s.RescueAfter, s.MaintainEvery, s.Now = 100, 100, 3*time.Second, 100*time.Millisecond, m.now
	e := w.client(s)
	e.app(tencentApp).Presence = &afterwards{e.app(tencentApp).Presence, m}
	e.registry.MustRegister(&State{Engine: e.Engine, Ready: func(context.Context) error { return nil }})
	if err := e.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stop(e, grace) })
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)

	// Users have left, so that the run has to find out who.
	w.exec(`DELETE FROM public.users WHERE id > $1`, users-10)
	w.rounds.SetRound(1)
	places := []string{
		"jobs.(*workers).plan",
		"imclient.(*Credentials).Get",      // asking
		"jobs.(*afterwards).QueryPresence", // with the answer
		"jobs.reviewPresence",
		"repo.(*Values).SavePage",
		"repo.(*Values).Reconcile",
		"repo.(*Store).closeRun",
		"jobs.(*keeper).housekeeping",
		"jobs.(*keeper).maintain",
		"jobs.(*scheduler).tick",
		"jobs.(*State).read",
	}
	m.make(places...)
	run := w.wait(e, w.start(e, tencentApp, imclient.KindPresence))
	w.ended(run, repo.RunSucceeded)
	if run.Users != users-10 {
		t.Errorf("the run has %d users, want %d", run.Users, users-10)
	}
	e.Schedule([]Job{e.job("p", tencentApp, time.Second, false)})
	for range 2 {
		if _, err := e.registry.Gather(); err != nil {
			t.Error(err)
		}
	}
	w.eventually(fmt.Sprintf("all mistakes were made, but for %v", m.toCome()), func() bool { return len(m.toCome()) == 0 })
	// The engine is up: it starts and ends runs.
	w.eventually("a tick has its run", func() bool {
		return w.count(`SELECT count(*) FROM syncer.sync_run WHERE job = 'p' AND status = 'succeeded'`) > 0
	})
	w.stop(e, grace)

	told := make(map[string]int)
	for _, line := range w.log.lines(`"stack":`) {
		for _, place := range places {
			if strings.Contains(line, "a mistake in "+place) {
				told[place]++
			}
		}
		if !strings.Contains(line, `"level":"error"`) || !strings.Contains(line, "panic_test.go") {
			t.Errorf("a panic is told of as: %s", line)
		}
	}
	want := make(map[string]int)
	for _, place := range places {
		want[place] = 1
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("how often each panic was told of (-want +got):\n%s", diff)
	}
	// Of those who left there is one row more than was served.
	if left := w.count(`WITH left_users AS (DELETE FROM syncer.presence_history WHERE user_id > $1 RETURNING state) SELECT count(*) FROM left_users WHERE state = 'removed'`, userID(users-10)); left != 10 {
		t.Errorf("%d users have left", left)
	}
	w.truthful(presenceTables, e.app(tencentApp), userIDs(users-10))
}
