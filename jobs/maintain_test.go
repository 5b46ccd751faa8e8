package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/archive"
	"syncer/repo"
)

// newEngine makes an engine that is not started yet.
func (w *world) newEngine(s engineSpec, configure func(*Engine)) *testEngine {
	w.t.Helper()
	e, err := newTestEngine(w.ctx, s, w.log.logger())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(e.close)
	configure(e.Engine)
	return e
}

// begin starts an engine that is stopped when the test ends.
func (w *world) begin(e *testEngine) {
	w.t.Helper()
	if err := e.Start(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.stop(e, grace) })
}

// spans gives the partitions of a history as from-to pairs of days since today.
func (w *world) spans(history string) []string {
	w.t.Helper()
	return query(w, pgx.RowTo[string], `
SELECT (lower_end AT TIME ZONE 'UTC')::date - (now() AT TIME ZONE 'UTC')::date || ' to ' || (upper_end AT TIME ZONE 'UTC')::date - (now() AT TIME ZONE 'UTC')::date
FROM syncer.history_partitions($1::text::regclass)`, "syncer."+history)
}

// TestMaintain_ahead: how far ahead partitions reach, from one period to the
// next: as far as is meant, and not a whole partition further.
func TestMaintain_ahead(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{})
	for _, tc := range []struct {
		period       string
		days, longer int
	}{{"month", 62, 31}, {"week", 35, 7}, {"day", 14, 1}} {
		e := w.newEngine(w.spec(), func(e *Engine) { e.config.Partition = tc.period })
		if next := e.keeper.maintain(w.ctx); next != maintainEvery {
			t.Errorf("%s: again in %s, want %s", tc.period, next, maintainEvery)
		}
		end := query(w, pgx.RowTo[time.Time], `SELECT max(upper_end) FROM syncer.history_partitions('syncer.presence_history')`)[0]
		until := e.store.Now().AddDate(0, 0, tc.days)
		present := query(w, pgx.RowTo[time.Time], `SELECT upper_end FROM syncer.history_partitions('syncer.presence_history') WHERE lower_end <= now() AND upper_end > now()`)[0]
		if until.Before(present) {
			until = present // which stays, whatever its period
		}
		if end.Before(until.Add(-time.Minute)) || end.After(until.AddDate(0, 0, tc.longer)) {
			t.Errorf("%s: partitions are made until %s, want %d days", tc.period, end, tc.days)
		}
	}
}

// TestMaintain_givesWay: while a report reads the history for long, the engine
// starts, pages are written, and maintenance is tried again soon. When the
// report is done, the partitions are made and hold what was written meanwhile.
func TestMaintain_givesWay(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 500})
	reader, err := pgx.Connect(w.ctx, w.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close(context.Background()) })
	if _, err := reader.Exec(w.ctx, `BEGIN; SELECT count(*) FROM syncer.presence_history`); err != nil {
		t.Fatal(err)
	}
	e := w.newEngine(w.spec(), func(e *Engine) {
		e.config.Partition, e.config.Retention = "day", 24*time.Hour
		e.keeper.maintainRetry = time.Millisecond
	})
	w.begin(e)
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	const placesSQL = `SELECT DISTINCT tableoid::regclass::text FROM syncer.presence_history`
	if diff := cmp.Diff([]string{"syncer.presence_history_default"}, query(w, pgx.RowTo[string], placesSQL)); diff != "" {
		t.Errorf("where the rows are while the history is read (-want +got):\n%s", diff)
	}
	ending := fmt.Sprintf("SELECT pg_terminate_backend(%d);", reader.PgConn().PID())
	w.eventually("the log warns of who keeps maintenance from its work", func() bool {
		return len(w.log.lines(`"level":"warn"`, "maintenance has given way for long", ending)) > 0
	})
	if n := len(w.log.lines("maintenance gave way", ending)); n < longInUse {
		t.Errorf("maintenance gave way to the reader %d times before that was a warning", n)
	}
	if _, err := reader.Exec(w.ctx, `COMMIT`); err != nil {
		t.Fatal(err)
	}
	w.eventually("the partitions are made", func() bool { return len(w.spans("presence_history")) > 0 })
	if got := query(w, pgx.RowTo[string], placesSQL); len(got) == 0 || slices.Contains(got, "syncer.presence_history_default") {
		t.Errorf("the rows are in %s in the end", got)
	}
	w.truthful(presenceTables, e.app(tencentApp), userIDs(500))
	if failed := w.log.lines("maintenance failed"); len(failed) > 0 {
		t.Errorf("giving way is logged as a failure: %s", failed)
	}
}

// TestMaintain_anotherRole: without the right to make partitions sweeps go on,
// and the log says what is missing.
func TestMaintain_anotherRole(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 300})
	role := "syncer_test_" + strings.ToLower(rand.Text()[:10])
	w.exec(`CREATE ROLE ` + role)
	t.Cleanup(func() { w.exec("DROP OWNED BY " + role); w.exec("DROP ROLE " + role) })
	for _, grant := range []string{`USAGE ON SCHEMA syncer`, `SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncer`, `USAGE ON ALL SEQUENCES IN SCHEMA syncer`} {
		w.exec(`GRANT ` + grant + ` TO ` + role)
	}
	w.exec(`GRANT SELECT ON public.users TO ` + role)
	s := w.spec()
	u, err := url.Parse(s.Database)
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery += "&role=" + role
	s.Database = u.String()
	e := w.newEngine(s, func(*Engine) {})
	w.begin(e)
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	w.truthful(presenceTables, e.app(tencentApp), userIDs(300))
	if got := query(w, pgx.RowTo[string], `SELECT DISTINCT tableoid::regclass::text FROM syncer.presence_history`); !cmp.Equal(got, []string{"syncer.presence_history_default"}) {
		t.Errorf("the rows are in %s", got)
	}
	w.eventually("the missing right is logged", func() bool {
		return len(w.log.lines(`"level":"warn"`, "maintenance failed", "syncer grant-worker")) == 1
	})
}

// TestMaintain_retention: what is beyond the retention goes, and the period's
// change takes effect with the next start.
func TestMaintain_retention(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 300})
	w.exec(`SELECT syncer.make_history_partitions('month', now() - interval '100 days', now() + interval '60 days')`)
	e := w.newEngine(w.spec(), func(e *Engine) { e.config.Partition, e.config.Retention = "day", 30*24*time.Hour })
	w.exec(`
INSERT INTO syncer.presence_history (app_id, user_id, state, platforms, observed_at, run_id)
SELECT 1, 'old', 'online', '{}', now() - days * interval '1 day', 1 FROM unnest('{1000,90,20}'::int[]) AS days`)
	w.begin(e)
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	w.eventually("the tables were maintained", func() bool { return len(w.log.lines("dropped history beyond the retention")) > 0 })
	ages := query(w, pgx.RowTo[int], `SELECT extract(day FROM now() - observed_at)::int FROM syncer.presence_history WHERE user_id = 'old'`)
	if diff := cmp.Diff([]int{20}, ages); diff != "" {
		t.Errorf("ages of what is kept in days (-want +got):\n%s", diff)
	}
	for _, history := range []string{"presence_history", "account_history"} {
		for _, span := range w.spans(history) {
			var from, to int
			if _, err := fmt.Sscanf(span, "%d to %d", &from, &to); err != nil {
				t.Fatal(err)
			}
			if to <= -30 || from > 0 && to != from+1 {
				t.Errorf("%s has a partition from day %s", history, span)
			}
		}
	}
	if n := w.count(`SELECT count(*) FROM syncer.presence_history_default`); n != 0 {
		t.Errorf("%d rows are in the default partition", n)
	}
	if len(w.log.lines("dropped history beyond the retention", `"partitions":`)) != 1 {
		t.Errorf("the drop is not logged once:\n%s", w.log.tail())
	}
}

// TestMaintain_archive: with an archive only archived partitions are dropped; nothing is if
// archiving fails, or another process is at it.
func TestMaintain_archive(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{})
	folder := t.TempDir()
	var archived error
	other := false
	e := w.newEngine(w.spec(), func(e *Engine) {
		e.config.Partition, e.config.Retention = "month", 40*24*time.Hour
		a := archive.New(e.store, folder, e.log)
		e.config.Archive = func(ctx context.Context, dropBefore time.Time) (time.Time, error) {
			if archived != nil || other {
				return time.Time{}, archived
			}
			result, err := a.Run(ctx, archive.Options{DropBefore: dropBefore})
			return result.Until, err
		}
	})
	app := e.app(tencentApp)
	old := e.store.Now().AddDate(0, -4, 0)
	w.exec(`SELECT syncer.make_history_partitions('month', $1, $2)`, old, e.store.Now())
	w.exec(`INSERT INTO syncer.presence_history (app_id, user_id, state, platforms, observed_at, run_id) VALUES ($1, 'anna', 'offline', '{}', $2, 1)`, app.ID, old)
	w.exec(`INSERT INTO syncer.sync_run (app_id, job, kind, trigger, status, started_at, finished_at, observed_from)
SELECT $1, 'j', 'presence', 'backfill', 'failed', $2, $2, $2`, app.ID, old)
	rows := func() int64 {
		return w.count(`SELECT (SELECT count(*) FROM syncer.presence_history WHERE user_id = 'anna') + (SELECT count(*) FROM syncer.sync_run WHERE job = 'j')`)
	}
	archived = errors.New("the disk is full")
	e.keeper.maintain(w.ctx)
	if n := rows(); n != 2 {
		t.Errorf("%d of 2 rows are left that could not be archived", n)
	}
	if len(w.log.lines("maintenance failed", "the disk is full")) == 0 {
		t.Error("the log does not say why")
	}
	archived, other = nil, true
	e.keeper.maintain(w.ctx)
	if n := rows(); n != 2 {
		t.Errorf("%d of 2 rows are left while another process archives", n)
	}
	other = false
	e.keeper.maintain(w.ctx)
	if n := rows(); n != 0 {
		t.Errorf("%d rows are left that are archived", n)
	}
	for _, table := range []string{"presence_history", "sync_run"} {
		files, err := filepath.Glob(filepath.Join(folder, table, "app=*", "month="+old.UTC().Format("2006-01"), "*.parquet"))
		if err != nil || len(files) != 1 {
			t.Errorf("files of %s: %v, %v", table, files, err)
		}
	}
}
