package migrations_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// writers write transitions, observed within a minute of now, until they are
// stopped.
type writers struct {
	t       testing.TB
	group   *errgroup.Group
	ctx     context.Context // ends with the first failure
	stopped chan struct{}
	written atomic.Int64
}

func startWriters(t testing.TB, url, now string) *writers {
	t.Helper()
	w := &writers{t: t, stopped: make(chan struct{})}
	w.group, w.ctx = errgroup.WithContext(t.Context())
	for i := range 3 {
		conn := connect(t, url)
		w.group.Go(func() error {
			for n := 0; ; n++ {
				select {
				case <-w.stopped:
					return nil
				default:
				}
				_, err := conn.Exec(t.Context(), `
INSERT INTO presence_history (app_id, user_id, state, platforms, observed_at, run_id)
VALUES (1, $1, 'online', '{}', $2::text::timestamptz + $3 * interval '1 second', 1)`, fmt.Sprint(i, " ", n), now, n%60)
				if err != nil {
					return err
				}
				w.written.Add(1)
			}
		})
	}
	return w
}

// more waits until so many more rows are written.
func (w *writers) more(rows int64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for until := w.written.Load() + rows; w.written.Load() < until; {
		select {
		case <-poll.C:
		case <-ctx.Done():
			w.t.Fatalf("the writers stand still: %v", context.Cause(ctx))
		}
	}
}

// stop ends the writers; none may have failed. It gives how many rows there are.
func (w *writers) stop() int64 {
	w.t.Helper()
	close(w.stopped)
	if err := w.group.Wait(); err != nil {
		w.t.Errorf("a writer failed: %v", err)
	}
	return w.written.Load()
}

// mustMake makes partitions, trying again as long as the function gives way.
func mustMake(t testing.TB, conn *pgx.Conn, period, since, until string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		var made *int
		row := conn.QueryRow(ctx, `SELECT make_history_partitions($1, $2::text::timestamptz, $3::text::timestamptz)`, period, since, until)
		if err := row.Scan(&made); err != nil {
			t.Fatal(err)
		}
		if made != nil && *made == 0 {
			return
		}
	}
}

// Every change of the period, while rows are written: the partition of the
// present stays, those ahead are made anew, and no row is lost, refused or put
// into the default partition.
func TestChangedPeriod(t *testing.T) {
	t.Parallel()
	const now, until = "2026-11-24 12:00+00", "2026-12-16 00:00+00" // a Tuesday, three weeks ahead
	present := map[string]string{"month": "20261101 to 20261201", "week": "20261123 to 20261130", "day": "20261124 to 20261125"}
	weeks := []string{"20261130 to 20261207", "20261207 to 20261214", "20261214 to 20261221"}
	days := func(first, last string) (all []string) {
		from, _ := time.Parse("20060102", first)
		for day := from; day.Format("20060102") <= last; day = day.AddDate(0, 0, 1) {
			all = append(all, day.Format("20060102")+" to "+day.AddDate(0, 0, 1).Format("20060102"))
		}
		return all
	}
	for _, test := range []struct {
		from, to string
		ahead    []string
	}{
		{"month", "week", append([]string{"20261201 to 20261207"}, weeks[1:]...)},
		{"month", "day", days("20261201", "20261215")},
		{"week", "month", []string{"20261130 to 20261201", "20261201 to 20270101"}},
		{"week", "day", days("20261130", "20261215")},
		{"day", "month", []string{"20261125 to 20261201", "20261201 to 20270101"}},
		{"day", "week", append([]string{"20261125 to 20261130"}, weeks...)},
	} {
		t.Run(test.from+" to "+test.to, func(t *testing.T) {
			t.Parallel()
			url := migrated(t)
			conn := connect(t, url)
			mustMake(t, conn, test.from, now, until)
			w := startWriters(t, url, now)
			w.more(50)
			mustMake(t, conn, test.to, now, until)
			w.more(50)
			rows := w.stop()
			want := append([]string{present[test.from]}, test.ahead...)
			for _, history := range []string{"presence_history", "account_history"} {
				if diff := cmp.Diff(want, spans(t, conn, history)); diff != "" {
					t.Errorf("partitions of %s (-want +got):\n%s", history, diff)
				}
			}
			wantRows := []string{fmt.Sprintf("presence_history_%.8s: %d", want[0], rows)}
			if diff := cmp.Diff(wantRows, column[string](t, conn, `SELECT tableoid::regclass || ': ' || count(*) FROM presence_history GROUP BY tableoid`)); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
}

// spans gives the partitions of a history, and refuses holes and overlaps.
func spans(t testing.TB, conn *pgx.Conn, history string) []string {
	t.Helper()
	run(t, conn, `SET timezone = 'UTC'`)
	all := column[string](t, conn, `SELECT to_char(lower_end, 'YYYYMMDD') || ' to ' || to_char(upper_end, 'YYYYMMDD') FROM history_partitions($1::text::regclass)`, history)
	for i := 1; i < len(all); i++ {
		if all[i-1][12:] != all[i][:8] {
			t.Errorf("%s: after %s comes %s", history, all[i-1], all[i])
		}
	}
	return all
}

// From period to period as time goes by: what was made stays what it is, except
// that ahead of the present, and what holds rows stays even there.
func TestChangedPeriods(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	for _, step := range []struct{ period, now, until string }{
		{"month", "2026-11-22", "2026-12-15"}, {"week", "2026-12-02", "2027-01-06"}, {"day", "2026-12-08", "2026-12-22"}, {"month", "2026-12-16", "2027-02-16"},
	} {
		mustMake(t, conn, step.period, step.now+" 10:00+00", step.until+" 10:00+00")
		if step.period == "day" {
			run(t, conn, addTransitionSQL, "ahead of its time", "2026-12-18 12:00+00")
		}
	}
	want := []string{
		"20261101 to 20261201", "20261201 to 20270101", // the week began within December's
		"20270101 to 20270201", "20270201 to 20270301",
	}
	if diff := cmp.Diff(want, spans(t, conn, "account_history")); diff != "" {
		t.Errorf("account_history (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, spans(t, conn, "presence_history")); diff != "" {
		t.Errorf("presence_history (-want +got):\n%s", diff)
	}
	// In the new year, back to days.
	mustMake(t, conn, "day", "2027-02-27 10:00+00", "2027-03-04 10:00+00")
	run(t, conn, addTransitionSQL, "early", "2027-03-03 12:00+00")
	for range 2 { // the second time all fits
		mustMake(t, conn, "month", "2027-03-01 10:00+00", "2027-04-04 10:00+00")
		oids := column[string](t, conn, `SELECT relation::oid::text FROM history_partitions('presence_history')`)
		want := append(slices.Clone(want), "20270301 to 20270302", "20270302 to 20270303", "20270303 to 20270304", "20270304 to 20270401", "20270401 to 20270501")
		if diff := cmp.Diff(want, spans(t, conn, "presence_history")); diff != "" {
			t.Errorf("presence_history with a row ahead (-want +got):\n%s", diff)
		}
		mustMake(t, conn, "month", "2027-03-01 10:00+00", "2027-04-04 10:00+00")
		if diff := cmp.Diff(oids, column[string](t, conn, `SELECT relation::oid::text FROM history_partitions('presence_history')`)); diff != "" {
			t.Errorf("partitions that fit were made anew (-before +after):\n%s", diff)
		}
	}
}

// Rows go to the default partition while the one of the present is made.
func TestMissingPartitionMadeWhileRowsAreWritten(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	conn := connect(t, url)
	const now = "2026-11-24 12:00+00"
	w := startWriters(t, url, now)
	w.more(50)
	for _, until := range []string{"2026-11-24 12:00:30+00", "2026-11-25 12:00+00"} {
		mustMake(t, conn, "day", now, until)
		w.more(50)
	}
	rows := w.stop()
	want := []string{fmt.Sprintf("presence_history_20261124: %d", rows)}
	if diff := cmp.Diff(want, column[string](t, conn, `SELECT tableoid::regclass || ': ' || count(*) FROM presence_history GROUP BY tableoid`)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// Whoever reads a history, however long, finds its rows and lets others write:
// maintenance gives way, and does of the other history what there is to do.
func TestGivesWay(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	conn, reader, writer := connect(t, url), connect(t, url), connect(t, url)
	mustMake(t, conn, "day", "2026-11-20 12:00+00", "2026-11-24 00:00+00")
	run(t, conn, addTransitionSQL, "old", "2026-11-20 12:00+00")
	run(t, conn, addTransitionSQL, "in the default partition", "2026-11-24 12:00+00")
	run(t, reader, `BEGIN`)
	run(t, reader, `SELECT count(*) FROM presence_history`)

	calls := 0
	call := func(call string) *int {
		t.Helper()
		calls++
		var group errgroup.Group
		var did *int
		group.Go(func() error { return conn.QueryRow(t.Context(), call).Scan(&did) })
		run(t, writer, addTransitionSQL, fmt.Sprint("page ", calls), "2026-11-22 12:00+00")
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		return did
	}
	const makeSQL, dropSQL = `SELECT make_history_partitions('day', '2026-11-22 12:00+00', '2026-11-26 00:00+00')`, `SELECT drop_history_partitions('2026-11-22 00:00+00')`
	const weekSQL = `SELECT make_history_partitions('week', '2026-11-22 12:00+00', '2026-11-26 00:00+00')`
	for _, sql := range []string{makeSQL, dropSQL, weekSQL} {
		if did := call(sql); did != nil {
			t.Errorf("%s = %d while presence_history is read; want NULL", sql, *did)
		}
	}
	for history, want := range map[string][]string{
		"presence_history": {"20261120 to 20261121", "20261121 to 20261122", "20261122 to 20261123", "20261123 to 20261124"},
		"account_history":  {"20261122 to 20261123", "20261123 to 20261130"},
	} {
		if diff := cmp.Diff(want, spans(t, conn, history)); diff != "" {
			t.Errorf("%s while presence_history is read (-want +got):\n%s", history, diff)
		}
	}
	run(t, reader, `COMMIT`)
	for _, sql := range []string{dropSQL, weekSQL} {
		if did := call(sql); did == nil || *did == 0 {
			t.Errorf("%s did nothing after the reader had gone", sql)
		}
	}
	want := []string{"20261122 to 20261123", "20261123 to 20261130"}
	if diff := cmp.Diff(want, spans(t, conn, "presence_history")); diff != "" {
		t.Errorf("presence_history in the end (-want +got):\n%s", diff)
	}
	wantRows := []string{"presence_history_20261122: 5", "presence_history_20261123: 1"}
	if diff := cmp.Diff(wantRows, column[string](t, conn, `SELECT tableoid::regclass || ': ' || count(*) FROM presence_history GROUP BY tableoid ORDER BY 1`)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// Making and dropping partitions is done with the owner's rights, by whom the
// owner lets do it and nobody else, and cannot be led to other tables.
func TestPartitionsByAnotherRole(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	conn := connect(t, url)
	role := "syncer_test_" + strings.ToLower(rand.Text()[:10])
	run(t, conn, "CREATE ROLE "+role)
	t.Cleanup(func() {
		if _, err := conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	run(t, conn, "GRANT USAGE ON SCHEMA syncer TO "+role)
	run(t, conn, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncer TO "+role)
	worker := connect(t, withParameter(t, url, "role", role))
	const makeSQL, dropSQL = `SELECT make_history_partitions('day', '2026-11-22 12:00+00', '2026-11-23 12:00+00')`, `SELECT drop_history_partitions('2026-11-23 00:00+00')`
	refused := func(sql string) {
		t.Helper()
		_, err := worker.Exec(t.Context(), sql)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "42501" {
			t.Errorf("%s: %v; want insufficient_privilege", sql, err)
		}
	}
	refused(makeSQL)
	refused(dropSQL)
	run(t, conn, "GRANT EXECUTE ON FUNCTION make_history_partitions, drop_history_partitions TO "+role)
	for _, sql := range []string{
		"CREATE TEMPORARY TABLE presence_history (observed_at timestamptz NOT NULL) PARTITION BY RANGE (observed_at)",
		"CREATE TEMPORARY TABLE presence_history_default PARTITION OF pg_temp.presence_history DEFAULT",
		"INSERT INTO pg_temp.presence_history VALUES ('2026-11-20 12:00+00')",
	} {
		run(t, worker, sql)
	}
	if made := column[int](t, worker, makeSQL)[0]; made != 4 {
		t.Errorf("%s = %d, want 2 of each history", makeSQL, made)
	}
	run(t, conn, addTransitionSQL, "a", "2026-11-23 12:00+00")
	if dropped := column[int](t, worker, dropSQL)[0]; dropped != 2 {
		t.Errorf("%s = %d, want 1 of each history", dropSQL, dropped)
	}
	if diff := cmp.Diff([]string{"presence_history_20261123 a"}, column[string](t, conn, placesSQL)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if n := column[int](t, worker, `SELECT count(*)::int FROM pg_temp.presence_history`)[0]; n != 1 {
		t.Errorf("the worker's own table has %d rows, want its one", n)
	}
	owners := column[string](t, conn, `SELECT DISTINCT c.relowner::regrole::text FROM pg_class AS c WHERE c.relnamespace = 'syncer'::regnamespace`)
	if slices.Contains(owners, role) {
		t.Errorf("the worker owns something: %v", owners)
	}
	refused(`DROP TABLE syncer.presence_history_20261123`)
}
