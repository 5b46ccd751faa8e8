package repo_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Of a database that is cut up by user_id, each shard must be able to do its part
// of a statement by itself. Three rules are read off the plan of each statement:
//
//   - the app of the users whose rows are read is given: by a parameter, by a
//     join, or the rows are grouped by it;
//   - tables that hold rows of users are joined by user_id, so that both rows are
//     on one shard, and none needs another's;
//   - no row moves to another shard: app_id and user_id are never set.

// usersOf are the tables that grow with the users, and so are to be cut up.
func usersOf(t *testing.T, conn *pgx.Conn) map[string]bool {
	t.Helper()
	tables := map[string]bool{}
	for _, table := range lines(t, conn, `
SELECT c.relname
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'user_id'
WHERE c.relnamespace = 'syncer'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'sync_run_user'`) {
		tables[table] = true
	}
	return tables
}

func TestStatementsFitShards(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	exec(t, conn, `SET plan_cache_mode = force_generic_plan; SET jit = off`)
	// What Reconcile fills.
	exec(t, conn, `CREATE TEMPORARY TABLE sync_users (user_id text COLLATE "C" NOT NULL, hash bigint NOT NULL)`)
	tables := usersOf(t, conn)
	all := statements(t)
	if len(all) < 50 {
		t.Fatalf("only %d statements were found", len(all))
	}
	kinds := map[string][]string{}
	for _, s := range all {
		exec(t, conn, fmt.Sprintf(`PREPARE %s AS %s`, s.name, s.sql))
		parameters := value[int](t, conn, `SELECT coalesce(cardinality(parameter_types), 0) FROM pg_prepared_statements WHERE name = lower($1)`, s.name)
		explain := "EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) EXECUTE " + s.name
		if parameters > 0 {
			explain += "(" + strings.TrimSuffix(strings.Repeat("NULL, ", parameters), ", ") + ")"
		}
		plan := planOf(t, value[string](t, conn, explain))
		r := newReading(tables)
		r.read(plan)
		for _, broken := range r.broken() {
			t.Errorf("%s: %s\n%s", s.name, broken, s.sql)
		}
		if moved := setsKey(s.sql); moved != "" {
			t.Errorf("%s: it sets %s\n%s", s.name, moved, s.sql)
		}
		kinds[r.kind()] = append(kinds[r.kind()], s.name)
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("%d %s: %s", len(kinds[kind]), kind, strings.Join(kinds[kind], " "))
	}
}

// TestFunctionsFitShards reads the plans of the statements inside of functions,
// which the server reports while they run.
func TestFunctionsFitShards(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	exec(t, b.conn, `INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, finished_at, complete, observed_from, observed_until)
VALUES ($1, 'presence', 'presence', 'backfill', 'succeeded', $2, $3, true, $2, $3)`, b.app.ID, noon, noon.AddDate(0, 0, 5))
	exec(t, b.conn, `INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, finished_at, complete, observed_from, observed_until)
VALUES ($1, 'presence', 'presence', 'backfill', 'succeeded', $2, $2, true, $2, $2)`, b.app.ID, noon.AddDate(0, 0, 5))
	exec(t, b.conn, `SELECT roll_up_presence($1, 'UTC', '-infinity')`, b.app.ID)
	// Something that comes to light later, of a day that is rolled up.
	exec(t, b.conn, addStretchSQL, b.app.ID, noon.AddDate(0, 0, 1), noon.AddDate(0, 0, 2))
	exec(t, b.conn, `UPDATE presence_rollup SET seen_until = '-infinity'`)

	tables := usersOf(t, b.conn)
	for _, f := range []struct {
		call string
		read []string
	}{
		{"roll_up_presence(1::smallint, 'UTC', '-infinity')", []string{"presence_day", "presence_history", "presence_snapshot", "user_failure"}},
		{"active_users('2026-11-22', '2026-11-30', 'UTC')", []string{"presence_day", "presence_history", "presence_snapshot", "user_failure"}},
	} {
		read := map[string]bool{}
		for _, nested := range nestedPlans(t, b.url, "SELECT * FROM "+f.call) {
			r := newReading(tables)
			r.read(nested.Plan)
			for _, broken := range r.broken() {
				t.Errorf("%s: %s\n%s", f.call, broken, nested.Query)
			}
			for _, table := range r.tables {
				read[table] = true
			}
		}
		if diff := cmp.Diff(f.read, slices.Sorted(maps.Keys(read))); diff != "" {
			t.Errorf("%s: tables of users in the plans that were told (-want +got):\n%s", f.call, diff)
		}
	}
}

// nestedPlan is a plan as auto_explain reports it.
type nestedPlan struct {
	Query string `json:"Query Text"`
	Plan  planNode
}

// nestedPlans runs a statement and returns the plans of all that it ran.
func nestedPlans(t *testing.T, url, sql string) []nestedPlan {
	t.Helper()
	config, err := pgx.ParseConfig(withParameters(t, url, "search_path", "syncer"))
	if err != nil {
		t.Fatal(err)
	}
	var plans []nestedPlan
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if _, text, ok := strings.Cut(n.Message, "plan:\n"); ok {
			var plan nestedPlan
			if err := json.Unmarshal([]byte(text), &plan); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
			plans = append(plans, plan)
		}
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	exec(t, conn, `LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
SET auto_explain.log_verbose = on; SET auto_explain.log_format = 'json'; SET auto_explain.log_level = 'notice'`)
	exec(t, conn, sql)
	return plans
}

// TestReading: each rule, broken, is seen.
func TestReading(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	exec(t, conn, `SET plan_cache_mode = force_generic_plan`)
	tables := usersOf(t, conn)
	for i, c := range []struct {
		what, sql string
		want      []string
	}{
		{
			what: "users of any app",
			sql:  `SELECT count(*) FROM presence_history AS h WHERE h.user_id = $1`,
			want: []string{"rows of presence_history (h) are read of any app"},
		},
		{
			what: "a join of different users",
			sql:  `SELECT count(*) FROM presence_snapshot AS s JOIN user_failure AS f ON f.app_id = s.app_id AND f.known_at = s.changed_at WHERE s.app_id = $1`,
			want: []string{"rows of users are joined, [s] with [f], but not by user_id"},
		},
		{
			what: "different users who must not be there",
			sql: `SELECT s.user_id FROM presence_snapshot AS s
WHERE s.app_id = $1 AND NOT EXISTS (SELECT FROM account_snapshot AS a WHERE a.app_id = $1 AND a.changed_at > s.changed_at)`,
			want: []string{"rows of users are joined, [s] with [a], but not by user_id"},
		},
		{
			what: "users of a CTE, by their state",
			sql: `WITH gone AS (DELETE FROM presence_snapshot AS s WHERE s.app_id = $1 RETURNING s.user_id, s.state)
SELECT h.user_id FROM presence_history AS h JOIN gone AS g ON g.state = h.state WHERE h.app_id = $1`,
			want: []string{"rows of users are joined, [g] with [h], but not by user_id"},
		},
		{
			what: "the same by user_id",
			sql: `WITH gone AS (DELETE FROM presence_snapshot AS s WHERE s.app_id = $1 RETURNING s.user_id, s.state)
SELECT h.user_id FROM presence_history AS h JOIN gone AS g ON g.user_id = h.user_id WHERE h.app_id = $1`,
		},
	} {
		exec(t, conn, fmt.Sprintf(`PREPARE s%d AS %s`, i, c.sql))
		r := newReading(tables)
		r.read(planOf(t, value[string](t, conn, fmt.Sprintf(`EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) EXECUTE s%d(NULL)`, i))))
		if diff := cmp.Diff(c.want, r.broken()); diff != "" {
			t.Errorf("%s: broken (-want +got):\n%s", c.what, diff)
		}
	}
	for sql, want := range map[string]string{
		`UPDATE presence_snapshot SET state = $1, user_id = $2 WHERE app_id = $3`:                              "user_id",
		`UPDATE presence_snapshot SET state = $1 WHERE app_id = $3 AND user_id = $4`:                           "",
		`INSERT INTO user_failure VALUES ($1) ON CONFLICT (app_id) DO UPDATE SET times = 1, app_id = $2`:       "app_id",
		`WITH c AS (UPDATE app SET name = $1) UPDATE account_snapshot AS s SET app_id = $2 FROM c RETURNING 1`: "app_id",
	} {
		if got := setsKey(sql); got != want {
			t.Errorf("%s: it sets %q, want %q", sql, got, want)
		}
	}
}
