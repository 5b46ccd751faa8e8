package lab

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"syncer/internal/dev/pgcluster"
	"syncer/internal/dev/pgtest"
	"syncer/internal/imsim"
	"syncer/internal/pg"
	"syncer/repo"
)

// crowd are users who come and go, change devices and are imported by the clock
// alone, a quarter of an hour away from any sweep: every life of a crowd is the
// same.
type crowd struct{ start time.Time }

const crowdUsers = 240

// number returns the n of a user's id.
func (c crowd) number(userID string) int {
	var n int
	_, _ = fmt.Sscanf(userID, "user-%d", &n)
	return n
}

func (c crowd) Imported(userID string, at time.Time) bool {
	n, hours := c.number(userID), at.Sub(c.start).Hours()
	switch {
	case n%10 == 3:
		return hours > 40.25
	case n%17 == 5:
		return hours < 30.25
	}
	return true
}

func (c crowd) AppendDevices(devices []imsim.Device, userID string, at time.Time) []imsim.Device {
	n := c.number(userID)
	slot := int(at.Sub(c.start)+15*time.Minute)/int(time.Hour) + n
	switch (slot / (2 + n%5)) % 4 {
	case 0:
		return append(devices, imsim.Device{Platform: imsim.IOS, Mode: imsim.Online})
	case 1:
		return append(devices, imsim.Device{Platform: imsim.Web, Mode: imsim.Online})
	case 2:
		return append(devices, imsim.Device{Platform: imsim.IOS, Mode: imsim.Push})
	}
	return devices
}

// life is what is left of three days of a crowd: rows by what they are.
type life map[string][]string

// TestShards lets the same three days pass twice: with both histories in one
// database, and with histories that go to three databases of a second cluster
// after the first day. Sweeps, lapses, users who leave, gaps, roll-ups, retention
// and reports leave the same rows.
func TestShards(t *testing.T) {
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	whole := live(t, start, nil)
	for what, rows := range whole {
		if len(rows) == 0 {
			t.Errorf("%s: nothing to compare", what)
		}
	}
	for _, state := range []string{"rejected", "removed"} {
		if !slices.ContainsFunc(whole["presence_history"], func(row string) bool { return strings.Contains(row, " "+state+" ") }) {
			t.Errorf("presence_history: nobody was %s", state)
		}
	}
	if t.Failed() {
		return
	}
	sharded := live(t, start, &shards{})
	if diff := cmp.Diff(whole, sharded); diff != "" {
		t.Errorf("one database (-) and shards (+):\n%.8000s", diff)
	}
}

// live lets three days pass; the histories move to the shards after the first.
func live(t *testing.T, start time.Time, moved *shards) life {
	t.Helper()
	ctx := t.Context()
	url := pgtest.Database(t)
	conn := connect(t, url)
	const every = time.Hour
	// max_gap is three times 50 minutes: no number of hours is just that long.
	s, err := Open(ctx, Config{URL: url, Users: crowdUsers, Start: start.Add(-time.Minute), Every: 50 * time.Minute, People: crowd{start}, Log: zerolog.Nop()})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	run(t, conn, `SET search_path = syncer; SET timezone = 'UTC'; SET jit = off; SET syncer.as_of = '2026-03-05'`)
	stores := []*repo.Store{openStore(t, s, url)}

	for tick := start; tick.Before(start.Add(72 * time.Hour)); tick = tick.Add(every) {
		hour := int(tick.Sub(start).Hours())
		switch hour {
		case 24:
			if moved != nil {
				stores = append(stores, moved.move(t, s, url)...)
			}
		case 30:
			run(t, conn, `CREATE TABLE public.gone AS SELECT * FROM public.users WHERE id % 13 = 0;
DELETE FROM public.users WHERE id % 13 = 0`)
		case 50:
			run(t, conn, `INSERT INTO public.users SELECT * FROM public.gone WHERE id % 2 = 0`)
		case 56:
			must(t, s.Refuse())
		case 62:
			s.Recover()
		}
		_, err := s.Presence(ctx, tick)
		must(t, err)
		if hour%8 == 0 {
			_, err = s.Accounts(ctx, tick.Add(5*time.Minute))
			must(t, err)
		}
		if hour%24 == 0 {
			for _, store := range stores {
				_, err = store.MakePartitions(ctx, "day", tick.Add(48*time.Hour))
				must(t, err)
			}
		}
	}
	must(t, stores[0].RollUp(ctx, time.UTC, time.Time{}))
	l := life{}
	l.add(t, conn, stores[0], start, "")
	for _, store := range stores {
		_, err := store.DropPartitions(ctx, start.Add(49*time.Hour))
		must(t, err)
	}
	_, err = stores[0].DropOldRuns(ctx, start.Add(49*time.Hour))
	must(t, err)
	must(t, stores[0].RollUp(ctx, time.UTC, start.Add(49*time.Hour)))
	l.add(t, conn, stores[0], start, " after retention")
	if moved != nil {
		moved.check(t, conn)
	}
	return l
}

// shards are the databases of a second cluster to which the histories go.
type shards struct{ conns []*pgx.Conn }

const shardCount = 3

// move starts the second cluster, makes syncer's schema in each of its databases,
// and runs docs/scaling_shards.sql.
func (s *shards) move(t testing.TB, life *Simulation, url string) []*repo.Store {
	t.Helper()
	cluster, err := pgcluster.Start(t.Context(), pgcluster.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, cluster.Stop()) })
	conn, admin := connect(t, url), connect(t, cluster.URL("postgres"))
	run(t, conn, `CREATE EXTENSION postgres_fdw; SET search_path = syncer, public`)
	var stores []*repo.Store
	for n := range shardCount {
		database := fmt.Sprintf("shard_%d", n)
		run(t, admin, `CREATE DATABASE `+database)
		shard := cluster.URL(database)
		must(t, migrate(t.Context(), shard))
		run(t, conn, serverSQL(t, n, shard))
		stores = append(stores, openStore(t, life, shard))
		s.conns = append(s.conns, connect(t, shard))
	}
	script, err := os.ReadFile("../../../docs/scaling_shards.sql")
	must(t, err)
	run(t, conn, fmt.Sprintf(`SET syncer.moves_at = '%s'`, life.Clock.Now().Format(time.RFC3339Nano)))
	run(t, conn, string(script))
	return stores
}

// serverSQL returns the statements of scaling.md for a shard.
func serverSQL(t testing.TB, n int, shard string) string {
	t.Helper()
	u, err := url.Parse(shard)
	must(t, err)
	password, _ := u.User.Password()
	return fmt.Sprintf(`
CREATE SERVER history_%[1]d FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host '%[2]s', port '%[3]s', dbname '%[4]s', fetch_size '10000', batch_size '1000', async_capable 'true');
CREATE USER MAPPING FOR CURRENT_USER SERVER history_%[1]d OPTIONS (user '%[5]s', password '%[6]s')`,
		n, u.Hostname(), u.Port(), strings.TrimPrefix(u.Path, "/"), u.User.Username(), password)
}

// writtenTwiceSQL stands in scaling.md.
const writtenTwiceSQL = `
SELECT app_id, user_id, prev_since, min(observed_at)
FROM syncer.presence_history
WHERE prev_state <> state
GROUP BY app_id, user_id, prev_since
HAVING count(*) > 1`

// check looks where the rows are, what the reports ask the shards for, and what
// foreign tables do not do.
func (s *shards) check(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for n, shard := range s.conns {
		got := lines(t, shard, `
SELECT 'presence', count(*) > 100, count(*) FILTER (WHERE tableoid = 'syncer.presence_history_default'::regclass) FROM syncer.presence_history
UNION ALL
SELECT 'accounts', count(*) > 0, count(*) FILTER (WHERE tableoid = 'syncer.account_history_default'::regclass) FROM syncer.account_history`)
		if diff := cmp.Diff([]string{"presence true 0", "accounts true 0"}, got); diff != "" {
			t.Errorf("history, that it has rows, rows in the default partition of shard %d (-want +got):\n%s", n, diff)
		}
	}
	local := lines(t, conn, `SELECT count(*) FROM ONLY presence_history_default`)
	if diff := cmp.Diff([]string{"0"}, local); diff != "" {
		t.Errorf("rows left in the default partition here (-want +got):\n%s", diff)
	}
	if twice := lines(t, conn, writtenTwiceSQL); len(twice) > 0 {
		t.Errorf("written twice: %v", twice)
	}
	for _, q := range pushedDown {
		t.Run(q.what, func(t *testing.T) {
			if diff := cmp.Diff(q.want, remoteConditions(t, conn, q.sql)); diff != "" {
				t.Errorf("what the shards are asked (-want +got):\n%s\n%s", diff, q.sql)
			}
		})
	}
	for _, r := range refused {
		t.Run(r.what, func(t *testing.T) {
			_, err := conn.Exec(t.Context(), r.sql)
			if err == nil || !strings.Contains(err.Error(), r.want) {
				t.Errorf("got %v, want an error with %q", err, r.want)
			}
		})
	}
}

// pushedDown are queries, and by which conditions the shards are asked for rows.
// What a query asks of users or of time reaches them. Conditions on the state do
// not: to postgres_fdw an enum is a type that the other database may not have.
var pushedDown = []struct {
	what, sql string
	want      []string
}{
	{
		what: "sessions of a user",
		sql:  `SELECT * FROM presence_session WHERE app_id = 1 AND user_id = 'user-0000001'`,
		want: []string{
			`app_id = 1, observed_at < 'infinity', user_id = 'user-0000001'`,
			`app_id = 1, user_id = 'user-0000001'`,
		},
	},
	{
		// The second is for sessions that a gap cut: they can have begun at any time.
		what: "sessions of an app that began in a time",
		sql:  `SELECT * FROM presence_session WHERE app_id = 1 AND started_at >= '2026-03-03 12:00Z' AND started_at < '2026-03-04Z'`,
		want: []string{
			`app_id = 1, observed_at < 'infinity'`,
			`app_id = 1, prev_since < '2026-03-04 00:00:00+00', prev_since >= '2026-03-03 12:00:00+00'`,
		},
	},
	{
		// $1 is the beginning of the first day that is not rolled up.
		what: "a user's days",
		sql:  `SELECT * FROM presence_daily('2026-03-04', '2026-03-04', 'Europe/Berlin') WHERE app_id = 1 AND user_id = 'user-0000001'`,
		want: []string{
			`app_id = 1, observed_at >= $1::timestamp with time zone, observed_at >= '2026-03-03 23:00:00+00', user_id = 'user-0000001'`,
		},
	},
	{
		what: "transitions of an app since a time",
		sql:  `SELECT state, count(*) FROM presence_history WHERE app_id = 1 AND observed_at >= '2026-03-04Z' GROUP BY state`,
		want: []string{`app_id = 1, observed_at >= '2026-03-04 00:00:00+00'`},
	},
	{
		what: "accounts since a day, as syncer report reads them",
		sql:  `SELECT h.app_id, count(*) FROM account_history AS h WHERE h.observed_at >= ('2026-03-04'::date)::timestamp AT TIME ZONE 'UTC' GROUP BY 1`,
		want: []string{`observed_at >= '2026-03-04 00:00:00+00'`},
	},
}

// refused is what foreign tables do not do, and why the snapshots and the failures
// stay where they are.
var refused = []struct{ what, sql, want string }{
	{
		what: "a unique index over shards",
		sql:  `CREATE UNIQUE INDEX ON presence_history (app_id, user_id, observed_at)`,
		want: "cannot create unique index on partitioned table",
	},
	{
		what: "an upsert into a shard",
		sql: `CREATE FOREIGN TABLE public.failure_elsewhere (app_id smallint, kind text, user_id text, times bigint)
    SERVER history_0 OPTIONS (schema_name 'syncer', table_name 'user_failure');
INSERT INTO public.failure_elsewhere VALUES (1, 'presence', 'user-0000001', 1)
ON CONFLICT (app_id, kind, user_id) DO UPDATE SET times = excluded.times`,
		want: "no unique or exclusion constraint matching the ON CONFLICT specification",
	},
}

// remoteConditions returns the conditions that a query sends to shards, in
// order, for each kind of question.
func remoteConditions(t testing.TB, conn *pgx.Conn, sql string) []string {
	t.Helper()
	var asked []string
	for _, line := range rows(t, conn, pgx.RowTo[string], "EXPLAIN (VERBOSE, COSTS OFF) "+sql) {
		if _, remote, ok := strings.Cut(line, "Remote SQL: SELECT "); ok {
			_, where, _ := strings.Cut(remote, " WHERE ")
			// Postgres 14 writes the types of constants.
			plain := strings.NewReplacer("((", "", "))", "", "'::timestamp with time zone", "'", "'::text", "'")
			conditions := strings.Split(plain.Replace(where), " AND ")
			slices.Sort(conditions)
			asked = append(asked, strings.Join(conditions, ", "))
		}
	}
	slices.Sort(asked)
	return slices.Compact(asked)
}

// openStore opens a store on a life's time, whose reports are of the end of it.
func openStore(t testing.TB, s *Simulation, database string) *repo.Store {
	t.Helper()
	u, err := url.Parse(database)
	must(t, err)
	query := u.Query()
	query.Set("syncer.as_of", "2026-03-05")
	u.RawQuery = query.Encode()
	store, err := repo.Open(t.Context(), pg.Config{URL: u.String(), Schema: "syncer", MaxConns: 2, Process: "test", Now: s.Clock.Now, Location: time.UTC})
	must(t, err)
	t.Cleanup(store.Close)
	return store
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// run runs statements.
func run(t testing.TB, conn *pgx.Conn, statements string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statements); err != nil {
		t.Fatalf("%v\n%s", err, statements)
	}
}

// lines returns rows as lines of their columns.
func lines(t testing.TB, conn *pgx.Conn, sql string) []string {
	t.Helper()
	return rows(t, conn, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		return strings.TrimSuffix(fmt.Sprintln(values...), "\n"), err
	}, sql)
}
