package repo_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
	"syncer/repo"
)

// TestLoad: what is known about users is the same, whether they are neighbours in
// the tables or many others lie between them, and whoever is unknown.
func TestLoad(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Presence()
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	p := page[imclient.Presence]("k")
	want := map[string]repo.Snapshot[imclient.Presence]{}
	for n := range 2000 {
		id, v := fmt.Sprintf("u%04d", n), []imclient.Presence{offline, onlineIOS, onlineWeb}[n%3]
		p.Changes = append(p.Changes, seen(id, v, at(n)))
		want[id] = repo.Snapshot[imclient.Presence]{Value: v, AskedAt: at(n - 1), ChangedAt: at(n)}
	}
	for _, n := range []int{5, 1500, 1501} {
		p.Failures = append(p.Failures, repo.Failure{UserError: imclient.UserError{UserID: fmt.Sprintf("u%04d", n), Code: "70169"}, KnownAt: at(n)})
	}
	save(t, values, r, p, 2000)
	every := func(first, last, step int) (ids []string) {
		for n := first; n <= last; n += step {
			ids = append(ids, fmt.Sprintf("u%04d", n))
		}
		return ids
	}
	for name, ids := range map[string][]string{
		"nobody":              nil,
		"one":                 {"u0005"},
		"neighbours":          every(1400, 1600, 1),
		"every second":        every(0, 1999, 2),
		"far apart":           every(5, 1999, 299),
		"the first, the last": {"u0000", "u1999"},
		"strangers between":   {"t", "u0004x", "u0005", "u0005x", "u1500", "v", "北京"},
		"only strangers":      {"a", "zz"},
	} {
		t.Run(name, func(t *testing.T) {
			values := b.store.Presence()
			for range 2 { // once as a stranger to the tables, once having learnt
				got, err := values.Load(t.Context(), b.app.ID, ids)
				if err != nil {
					t.Fatal(err)
				}
				wanted := make([]repo.Snapshot[imclient.Presence], len(ids))
				failing := map[string]repo.KnownFailure{}
				for i, id := range ids {
					wanted[i] = want[id]
					for _, f := range p.Failures {
						if f.UserID == id {
							failing[id] = repo.KnownFailure{Code: "70169", KnownAt: f.KnownAt, LastAt: noon}
						}
					}
				}
				if !slices.ContainsFunc(wanted, func(s repo.Snapshot[imclient.Presence]) bool { return s.Exists() }) {
					wanted = nil
				}
				if diff := cmp.Diff(repo.Known[imclient.Presence]{Snapshots: wanted, Failing: failing}, got, cmpNoEntries); diff != "" {
					t.Errorf("Load (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// cmpNoEntries takes nothing, in whatever form, for the same.
var cmpNoEntries = cmp.Options{
	cmp.FilterValues(func(a, b map[string]repo.KnownFailure) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []repo.Snapshot[imclient.Presence]) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore()),
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
}

// TestSavePage_manyNew: a page of many new users leaves the same rows as single
// ones do, also when one of them is not new any more.
func TestSavePage_manyNew(t *testing.T) {
	t.Parallel()
	for _, kind := range []imclient.Kind{imclient.KindPresence, imclient.KindAccounts} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			one, many := newBench(t), newBench(t)
			if kind == imclient.KindPresence {
				testManyNew(t, one, many, kind, func(b *bench) *repo.Values[imclient.Presence] { return b.store.Presence() }, onlineIOS, offline)
			} else {
				testManyNew(t, one, many, kind, func(b *bench) *repo.Values[imclient.AccountStatus] { return b.store.Accounts() },
					imclient.StatusImported, imclient.StatusNotImported)
			}
		})
	}
}

func testManyNew[V comparable](t *testing.T, one, many *bench, kind imclient.Kind, of func(*bench) *repo.Values[V], first, second V) {
	t.Helper()
	const users = 600
	tables := map[imclient.Kind]string{imclient.KindPresence: "presence", imclient.KindAccounts: "account"}
	rows := map[*bench][]string{}
	for _, b := range []*bench{one, many} {
		r := b.startedRange(t, b.backfill(kind))
		values := of(b)
		save(t, values, r, page("0", seen("u0100", first, at(0))), 1) // on another page too
		prev := load(t, values, b.app.ID, "u0100")
		changes := []repo.Change[V]{changed("t", prev, second, at(0), at(2))} // gone meanwhile
		for n := range users {
			c := seen(fmt.Sprintf("u%04d", n), first, at(1))
			if n == 7 {
				c.AskedAt = at(9) // the clock was set back
			}
			changes = append(changes, c)
		}
		changes = append(changes, changed("u0100", prev, second, at(0), at(2)))
		if b == one {
			var saved int64
			for _, c := range changes {
				n, err := values.SavePage(t.Context(), r, page(c.UserID, c))
				if err != nil {
					t.Fatal(err)
				}
				saved += n
			}
			if saved != users {
				t.Errorf("%d saved one by one, want %d", saved, users)
			}
		} else {
			save(t, values, r, page("k", changes...), users)
			if got := value[int](t, b.conn, `SELECT changed::int FROM sync_range`); got != users+1 {
				t.Errorf("the range counts %d changed, want %d", got, users+1)
			}
		}
		rows[b] = append(lines(t, b.conn, `SELECT s::text FROM `+tables[kind]+`_snapshot AS s ORDER BY user_id`),
			lines(t, b.conn, `SELECT h::text FROM `+tables[kind]+`_history AS h ORDER BY user_id, observed_at`)...)
	}
	if len(rows[one]) != 2*users+1 {
		t.Errorf("%d rows, want %d", len(rows[one]), 2*users+1)
	}
	if diff := cmp.Diff(rows[one], rows[many]); diff != "" {
		t.Errorf("rows (-one by one +at once):\n%.3000s", diff)
	}
}

// TestRecordFailures: failures that go on are recorded by a backfill, and else
// once an hour; a run that failed has not recorded them.
func TestRecordFailures(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	minute := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Minute) }
	for _, test := range []struct {
		minute   int
		backfill bool
		end      repo.RunStatus
		want     bool
	}{
		{0, false, repo.RunSucceeded, true}, // nothing was recorded before
		{1, false, repo.RunSucceeded, false},
		{58, false, repo.RunSucceeded, false},
		{60, false, repo.RunFailed, true},
		{61, false, repo.RunSucceeded, true},
		{62, false, repo.RunSucceeded, false},
		{63, true, repo.RunSucceeded, true},
		{121, false, repo.RunSucceeded, false},
		{122, false, repo.RunSucceeded, true},
	} {
		b.clock.pass(minute(test.minute).Sub(b.clock.Now()))
		n := b.backfill(imclient.KindPresence)
		if !test.backfill {
			n.Job, n.Trigger, n.Tick = "presence", repo.TriggerCron, b.clock.Now()
		}
		r := b.startedRange(t, n)
		if r.Run.RecordFailures != test.want {
			t.Errorf("minute %d: RecordFailures = %t, want %t", test.minute, r.Run.RecordFailures, test.want)
		}
		if test.end == repo.RunFailed {
			if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunFailed, "for the test"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if closed := b.finish(t, r, ""); !closed {
			t.Fatalf("minute %d: the run was not closed", test.minute)
		}
	}
}
