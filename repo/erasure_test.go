package repo_test

import (
	"fmt"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/dev/pgcluster"
	"syncer/internal/dev/pgtest"
	"syncer/repo"
)

const salt repo.Salt = "a salt for tests only"

// texts are the columns of the schema that can hold a text of any kind, and what an
// erasure does with a user id there. A new column has to be put here, and erased.
var texts = map[string]string{
	"account_history.user_id": "row", "account_snapshot.user_id": "row", "presence_day.user_id": "row",
	"presence_history.user_id": "row", "presence_snapshot.user_id": "row", "user_failure.user_id": "row", "sync_run_user.user_id": "row",
	"sync_range.lower_key": "bound", "sync_range.upper_key": "bound", "sync_range.cursor_key": "bound", "sync_run.plan_cursor": "bound",
	"sync_run.error": "message", "sync_range.error": "message", "user_failure.message": "message", "api_quota.failing_error": "message",
	"river_job.errors": "message",
}

// noUsers are the columns that hold syncer's own words, names of the configuration, numbers
// of users, and what River needs.
var noUsers = map[string]bool{
	"app.name": true, "app.provider": true, "app.tenant": true, "app.earlier_tenants": true,
	"sync_run.job": true, "sync_run.kind": true, "sync_run.trigger": true, "sync_run.status": true, "sync_run.plan_owner": true, "sync_run.key_order": true,
	"sync_range.status": true, "sync_range.owner": true, "sync_range.counts": true,
	"observation_gap.kind": true, "user_failure.kind": true, "user_failure.code": true, "api_quota.api": true,
	"presence_snapshot.platforms": true, "presence_history.platforms": true, "presence_count.platform": true, "presence_rollup.zone": true,
	"queue_channel.name": true, "erasure.user_hash": true, "erasure.salt_id": true,
	"history_archive.relation": true, "history_archive.sha256": true, "history_archive_day.relation": true,
	// planArgs and rangeArgs hold numbers; queues are named after app and kind.
	"river_job.args": true, "river_job.metadata": true, "river_job.tags": true, "river_job.kind": true, "river_job.queue": true,
	"river_job.attempted_by": true, "river_job.unique_key": true,
}

const textColumnsSQL = `
SELECT c.relname || '.' || a.attname
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'syncer'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'syncer_migration'
  AND c.relname NOT IN ('river_leader', 'river_migration', 'river_queue', 'river_notification', 'river_client', 'river_client_queue')
  AND a.atttypid::regtype::text IN ('text', 'text[]', 'character varying', 'character varying[]', 'jsonb', 'jsonb[]', 'json', 'bytea')
ORDER BY 1`

// TestErase_everyColumn: whoever adds a column that can hold a user id has to erase it.
func TestErase_everyColumn(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	for _, column := range lines(t, conn, textColumnsSQL) {
		if texts[column] == "" && !noUsers[column] {
			t.Errorf("column %s: can it hold a user id, as such or in a message? If so erase_user and repo.Erase have to remove it; add it to texts or to noUsers", column)
		}
	}
}

// dump returns the database as pg_dump prints it, line by line.
func dump(t *testing.T, url string) []string {
	t.Helper()
	programs, err := pgcluster.Find()
	if err != nil {
		t.Fatal(err)
	}
	out, err := osexec.CommandContext(t.Context(), filepath.Join(programs.Dir, "pg_dump"), "--dbname="+url).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(out), "\n")
}

func with(lines []string, text string) (found []string) {
	for _, line := range lines {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// fill puts a user of an app into every table that can hold one, and into every message,
// in all partitions, in one that was detached, and in one on another server.
func fill(t *testing.T, b *bench, appID int16, id string) {
	t.Helper()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := b.conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for month := range 4 { // two partitions, a detached one, and the default
		at := time.Date(2026, 10+time.Month(month), 5, 0, 0, 0, 0, time.UTC)
		exec(`INSERT INTO presence_history (app_id, user_id, state, platforms, observed_at, run_id) VALUES ($1, $2, 'online', '{}', $3, 1)`, appID, id, at)
		exec(`INSERT INTO account_history (app_id, user_id, status, observed_at, run_id) VALUES ($1, $2, 'imported', $3, 1)`, appID, id, at)
		exec(`INSERT INTO presence_day SELECT $1, $2, $3::date, 1, 1, $3, $3`, appID, id, at)
	}
	exec(`INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since) VALUES ($1, $2, 'online', '{}', $3, $3, 1, $3)`, appID, id, noon)
	exec(`INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id) VALUES ($1, $2, 'imported', $3, $3, 1)`, appID, id, noon)
	exec(`INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times)
SELECT $1, k, $2, '1', 'no such user: ' || $2, $3, $3, 1 FROM unnest('{presence, accounts}'::text[]) AS k`, appID, id, noon)
	exec(`INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times)
VALUES ($1, 'presence', '', 'null_id', 'rows with key 7, ' || $2 || ', 9', $3, $3, 1)`, appID, id, noon)
	exec(`INSERT INTO api_quota (app_id, api, rate, next_at, failing_error) VALUES ($1, 'presence', 1, $3, 'account [' || $2 || '] invalid')`, appID, id, noon)
	// A closed run with the user in its list, its bounds and its errors; one that was being
	// planned when it failed; and one whose ranges end at other users.
	last := value[int64](t, b.conn, `SELECT coalesce(max(run_id), 0) FROM sync_run`)
	exec(`INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, finished_at, observed_from, listed, planned, plan_ranges, plan_cursor, error)
SELECT $1, 'backfill', 'presence', 'backfill', 'failed', $3, $3, $3, n = 1, n <> 2, 2, CASE WHEN n = 2 THEN $2 END, 'save the page up to key ' || $2 || ' of range 1: it broke'
FROM generate_series(1, 3) AS n`, appID, id, noon)
	exec(`INSERT INTO sync_run_user SELECT DISTINCT run_id, u FROM sync_run, unnest(ARRAY[$1, 'another']) AS u WHERE run_id > $2 AND listed`, id, last)
	exec(`INSERT INTO sync_range (run_id, range_no, status, lower_key, upper_key, cursor_key, error)
SELECT u.run_id, r.no, 'failed', r.lower_key, r.upper_key, r.cursor_key, 'key "' || $1 || '" is not less than the next'
FROM sync_run AS u, (VALUES (1, NULL, $1, 'a'), (2, $1, NULL, $1)) AS r (no, lower_key, upper_key, cursor_key)
WHERE u.run_id > $2 AND u.listed`, id, last)
	exec(`INSERT INTO sync_range (run_id, range_no, status, lower_key, error)
SELECT max(run_id), 1, 'failed', 'another', 'key ' || $2 FROM sync_run WHERE app_id = $1`, appID, id)
	exec(`INSERT INTO river_job (kind, args, max_attempts, errors) VALUES ('syncer_range', '{"run_id": 1, "range_no": 1}', 7,
ARRAY[jsonb_build_object('at', $2::timestamptz, 'attempt', 1, 'error', 'save the page up to key ' || $1, 'trace', 'of "' || $1 || '"')])`, id, noon)
}

// TestErase is the whole erasure: no row is left anywhere, and nothing of anybody else is
// missing.
func TestErase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	second, err := b.store.EnsureApp(t.Context(), "second", imclient.ProviderTencent, "1400000002")
	if err != nil {
		t.Fatal(err)
	}
	// October and November are partitions; December is on another server; January is in
	// the default partition, then in a partition that is detached.
	far := migrated(t)
	foreignPartition(t, b, far)
	exec(t, b.conn, `SELECT make_history_partitions('month', '2026-10-01', '2026-12-01')`)
	ids := []string{"another", "zq-short", "zq.77+x"}
	for _, id := range ids {
		for _, app := range []repo.App{b.app, second} {
			if id == "another" && app == second {
				continue
			}
			exec(t, b.conn, `DELETE FROM api_quota; DELETE FROM user_failure WHERE user_id = ''`)
			fill(t, b, app.ID, id)
		}
	}
	exec(t, b.conn, `
CREATE TABLE presence_history_old (LIKE presence_history INCLUDING ALL);
INSERT INTO presence_history_old SELECT * FROM presence_history_default;
DELETE FROM presence_history_default;`)
	// A running run of whose ranges the user is a bound, and one that goes on.
	bounded := b.start(t, b.backfill(imclient.KindPresence))
	b.plan(t, bounded, "zq.77+x")
	goesOn := b.start(t, b.backfill(imclient.KindAccounts))
	b.plan(t, goesOn, "m")
	fill0 := fmt.Sprintf("save the page up to key %s", ids[2])
	exec(t, b.conn, `INSERT INTO api_quota (app_id, api, rate, next_at, failing_error) VALUES ($1, 'accounts', 1, $2, $3) ON CONFLICT DO NOTHING`, b.app.ID, noon, fill0)

	before := dump(t, b.url)
	if n := len(with(before, "zq.77+x")); n < 40 {
		t.Fatalf("only %d lines of the dump have the user", n)
	}
	dry, err := b.store.Erase(t.Context(), repo.Erasure{App: b.app, UserID: "zq.77+x", Salt: salt, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(with(before, "zq.77+x"), with(dump(t, b.url), "zq.77+x")); diff != "" {
		t.Errorf("a dry run changed something:\n%s", diff)
	}
	for _, app := range []repo.App{b.app, second} {
		erased, err := b.store.Erase(t.Context(), repo.Erasure{App: app, UserID: "zq.77+x", Salt: salt})
		if err != nil {
			t.Fatal(err)
		}
		if app == b.app {
			if diff := cmp.Diff(dry, erased); diff != "" {
				t.Errorf("a dry run and the erasure (-dry +real):\n%s", diff)
			}
			if diff := cmp.Diff([]int64{bounded}, erased.Cancelled); diff != "" {
				t.Errorf("cancelled runs (-want +got):\n%s", diff)
			}
		}
	}
	after := dump(t, b.url)
	for _, line := range with(after, "zq.77+x") {
		t.Errorf("left: %s", line)
	}
	for _, line := range with(dump(t, far), "zq.77+x") {
		t.Errorf("left on the other server: %s", line)
	}
	// The others are as they were, but for the numbers of runs.
	for _, id := range ids[:2] {
		if want, got := len(with(before, id)), len(with(after, id)); want != got {
			t.Errorf("lines of the dump with %s: %d before, %d after", id, want, got)
		}
	}
	wantLines(t, b.conn, "runs", fmt.Sprintf(`SELECT run_id, status, erasures FROM sync_run WHERE run_id >= %d ORDER BY 1`, bounded),
		fmt.Sprintf("%d cancelled 0", bounded), fmt.Sprintf("%d running 1", goesOn))
	wantLines(t, b.conn, "recorded", `SELECT app_id, excluded FROM erasure ORDER BY 1`, "1 false", "2 false")
}

// foreignPartition makes December's partition of presence_history a foreign table.
func foreignPartition(t *testing.T, b *bench, far string) {
	t.Helper()
	there, err := pgx.ParseConfig(far)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, b.conn, fmt.Sprintf(`
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%d', dbname '%s');
CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user '%s', password '%s');
ALTER TABLE presence_history DROP CONSTRAINT presence_history_pkey;
CREATE FOREIGN TABLE presence_history_far PARTITION OF presence_history FOR VALUES FROM ('2026-12-01') TO ('2027-01-01')
    SERVER far OPTIONS (schema_name 'syncer', table_name 'presence_history')`,
		there.Host, there.Port, there.Database, there.User, there.Password))
}

// TestErase_fence: what was claimed before an erasure is not written after it.
func TestErase_fence(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	page := repo.Page[imclient.Presence]{LastKey: "b", Changes: []repo.Change[imclient.Presence]{
		{UserID: "a", Value: onlineIOS, AskedAt: noon, ObservedAt: noon}, {UserID: "b", Value: onlineIOS, AskedAt: noon, ObservedAt: noon}}}
	erase := func(id string, exclude bool) {
		t.Helper()
		if _, err := b.store.Erase(t.Context(), repo.Erasure{App: b.app, UserID: id, Salt: salt, Exclude: exclude}); err != nil {
			t.Fatal(err)
		}
	}
	erase("a", true)
	_, err := b.store.Presence().SavePage(t.Context(), r, page)
	wantErr(t, "a page that was read before", err, repo.ErrErased)
	_, err = b.store.SaveSuspect(t.Context(), r, repo.SuspectPage{LastKey: "b"}, enqueue)
	wantErr(t, "a suspect one", err, repo.ErrErased)
	_, err = b.store.FinishRange(t.Context(), r, "", nothing)
	wantErr(t, "the end of the range", err, repo.ErrErased)
	wantLines(t, b.conn, "snapshots", `SELECT user_id FROM presence_snapshot`)

	if err := b.store.ReleaseRange(t.Context(), r, "", repo.Counters{}); err != nil {
		t.Fatal(err)
	}
	r = b.claim(t, r.Run.ID, r.No)
	if diff := cmp.Diff([]string{"b"}, salt.Skip(r, []string{"a", "b"})); diff != "" {
		t.Errorf("users who are asked about (-want +got):\n%s", diff)
	}
	wantErr(t, "another salt", repo.Salt("another salt").Check(r), repo.ErrSalt)
	wantErr(t, "another salt at start", b.store.CheckSalt(t.Context(), ""), repo.ErrSalt)
	if err := salt.Check(r); err != nil {
		t.Error(err)
	}
	page.Changes = page.Changes[1:]
	if _, err := b.store.Presence().SavePage(t.Context(), r, page); err != nil {
		t.Error(err)
	}
	// Planning, too: a key can be the user id.
	runID := b.start(t, b.backfill(imclient.KindAccounts))
	plan, err := b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	if err != nil {
		t.Fatal(err)
	}
	erase("c", false)
	c := "c"
	wantErr(t, "a bound that was read before", b.store.AddRange(t.Context(), plan, &c, enqueue), repo.ErrErased)
	// A list that was matched before.
	if err := b.store.EndRun(t.Context(), runID, repo.RunFailed, "test"); err != nil {
		t.Fatal(err)
	}
	listed := b.backfill(imclient.KindAccounts)
	listed.Listed, listed.ListedAt, listed.Salt = []string{"c", "d"}, noon, salt
	b.start(t, listed)
	wantLines(t, b.conn, "the list", `SELECT user_id FROM sync_run_user`, "d")
	excluded, err := b.store.IsExcluded(t.Context(), b.app.ID, salt, "a")
	if err != nil || !excluded {
		t.Errorf("IsExcluded = %v, %v", excluded, err)
	}
}

// TestErase_pageInFlight: an erasure waits for a page that is being written, and finds its
// users.
func TestErase_pageInFlight(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	// A session that holds what a page holds.
	tx, err := connect(t, b.url).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM syncer.sync_run WHERE run_id = $1 FOR KEY SHARE`, r.Run.ID); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.store.Erase(t.Context(), repo.Erasure{App: b.app, UserID: "a", Salt: salt})
		done <- err
	}()
	pgtest.AwaitLocked(t, b.conn, 1)
	if _, err := tx.Exec(t.Context(), `INSERT INTO syncer.presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since) VALUES ($1, 'a', 'online', '{}', $2, $2, 1, $2)`, b.app.ID, noon); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantLines(t, b.conn, "snapshots", `SELECT user_id FROM presence_snapshot`)
}
