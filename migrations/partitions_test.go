package migrations_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// partitionsSQL gives the bounds of the partitions of one history, oldest first.
const partitionsSQL = `
SELECT c.relname || ': ' || replace(replace(pg_get_expr(c.relpartbound, c.oid), ' 00:00:00+00', ''), 'FOR VALUES ', '')
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::regclass
ORDER BY c.relname`

func partitions(t testing.TB, conn *pgx.Conn, history string) []string {
	t.Helper()
	run(t, conn, `SET timezone = 'UTC'`)
	return column[string](t, conn, partitionsSQL, history)
}

// makePartitions calls the function from a time zone that is not UTC, and gives
// what it returned.
func makePartitions(t testing.TB, conn *pgx.Conn, period, since, until string) int {
	t.Helper()
	run(t, conn, `SET timezone = 'Asia/Shanghai'`)
	return column[int](t, conn, `SELECT make_history_partitions($1, $2::text::timestamptz, $3::text::timestamptz)`, period, since, until)[0]
}

func TestMakeHistoryPartitions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		period, since, until string
		want                 []string
	}{
		{"month", "2026-11-22 15:00+00", "2027-01-02 00:00+00", []string{
			"account_history_20261101: FROM ('2026-11-01') TO ('2026-12-01')",
			"account_history_20261201: FROM ('2026-12-01') TO ('2027-01-01')",
			"account_history_20270101: FROM ('2027-01-01') TO ('2027-02-01')",
		}},
		{"week", "2026-11-22 15:00+00", "2026-12-01 00:00+00", []string{
			"account_history_20261116: FROM ('2026-11-16') TO ('2026-11-23')",
			"account_history_20261123: FROM ('2026-11-23') TO ('2026-11-30')",
			"account_history_20261130: FROM ('2026-11-30') TO ('2026-12-07')",
		}},
		// Days are those of UTC, not of the session.
		{"day", "2026-12-30 23:59+00", "2027-01-01 00:00+00", []string{
			"account_history_20261230: FROM ('2026-12-30') TO ('2026-12-31')",
			"account_history_20261231: FROM ('2026-12-31') TO ('2027-01-01')",
		}},
	} {
		t.Run(test.period, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, migrated(t))
			if made := makePartitions(t, conn, test.period, test.since, test.until); made != 2*len(test.want) {
				t.Errorf("made %d, want %d", made, 2*len(test.want))
			}
			want := append(test.want, "account_history_default: DEFAULT")
			if diff := cmp.Diff(want, partitions(t, conn, "account_history")); diff != "" {
				t.Errorf("partitions (-want +got):\n%s", diff)
			}
			if n := len(partitions(t, conn, "presence_history")); n != len(want) {
				t.Errorf("presence_history has %d partitions, want %d", n, len(want))
			}
			if made := makePartitions(t, conn, test.period, test.since, test.until); made != 0 {
				t.Errorf("the second call made %d", made)
			}
			if diff := cmp.Diff(want, partitions(t, conn, "account_history")); diff != "" {
				t.Errorf("partitions after the second call (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMakeHistoryPartitionsRefusesOtherPeriods(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	for _, period := range []string{"year", "fortnight", "", "day'; DROP TABLE app; --"} {
		_, err := conn.Exec(t.Context(), `SELECT make_history_partitions($1, '2026-11-01', '2026-12-01')`, period)
		want := "ERROR: period " + period + " is not one of day, week, month (SQLSTATE P0001)"
		if err == nil || err.Error() != want {
			t.Errorf("period %q: %v; want %s", period, err, want)
		}
	}
}

const addTransitionSQL = `
INSERT INTO presence_history (app_id, user_id, state, platforms, observed_at, run_id)
VALUES (1, $1, 'online', '{}', $2::text::timestamptz, 1)`

// placesSQL tells in which partition each row is.
const placesSQL = `SELECT tableoid::regclass || ' ' || user_id FROM presence_history ORDER BY observed_at, user_id`

// Rows that were written while their partition was missing get it later,
// whether the newest partitions ran out or there is a hole between two.
func TestRowsInTheDefaultPartition(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	run(t, conn, addTransitionSQL, "first", "2026-10-30 12:00+00")
	run(t, conn, `CREATE TABLE account_history_20261101 PARTITION OF account_history FOR VALUES FROM ('2026-11-01 00:00+00') TO ('2026-12-01 00:00+00')`)
	run(t, conn, `CREATE TABLE account_history_20270101 PARTITION OF account_history FOR VALUES FROM ('2027-01-01 00:00+00') TO ('2027-02-01 00:00+00')`)
	run(t, conn, `INSERT INTO account_history VALUES (1, 'hole', NULL, 'imported', NULL, '2026-12-31 23:59:59.999999+00', 1)`)
	if made := makePartitions(t, conn, "month", "2026-11-22 00:00+00", "2027-01-15 00:00+00"); made != 4+1 {
		t.Errorf("made %d partitions, want October to January, and December", made)
	}
	run(t, conn, addTransitionSQL, "past the last", "2027-02-28 12:00+00")
	run(t, conn, addTransitionSQL, "far ahead", "2027-09-01 12:00+00")
	if made := makePartitions(t, conn, "month", "2027-02-28 13:00+00", "2027-03-15 00:00+00"); made != 2+2 {
		t.Errorf("made %d partitions, want February and March of both", made)
	}
	want := []string{
		"presence_history_20261001: FROM ('2026-10-01') TO ('2026-11-01')",
		"presence_history_20261101: FROM ('2026-11-01') TO ('2026-12-01')",
		"presence_history_20261201: FROM ('2026-12-01') TO ('2027-01-01')",
		"presence_history_20270101: FROM ('2027-01-01') TO ('2027-02-01')",
		"presence_history_20270201: FROM ('2027-02-01') TO ('2027-03-01')",
		"presence_history_20270301: FROM ('2027-03-01') TO ('2027-04-01')",
		"presence_history_default: DEFAULT",
	}
	if diff := cmp.Diff(want, partitions(t, conn, "presence_history")); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	want = []string{"presence_history_20261001 first", "presence_history_20270201 past the last", "presence_history_default far ahead"}
	if diff := cmp.Diff(want, column[string](t, conn, placesSQL)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	want = []string{"account_history_20261201 hole"}
	if diff := cmp.Diff(want, column[string](t, conn, `SELECT tableoid::regclass || ' ' || user_id FROM account_history`)); diff != "" {
		t.Errorf("rows of account_history (-want +got):\n%s", diff)
	}
	// Whatever the way in which it was made, a partition is like any other.
	const describeSQL = `
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::text::regclass
UNION ALL SELECT replace(pg_get_indexdef(indexrelid), indrelid::regclass::text, 'history') FROM pg_index WHERE indrelid = $1::text::regclass AND NOT indisprimary
UNION ALL SELECT attname || attnotnull FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY 1`
	if diff := cmp.Diff(column[string](t, conn, describeSQL, "presence_history_default"), column[string](t, conn, describeSQL, "presence_history_20270201")); diff != "" {
		t.Errorf("a partition (-default +made):\n%s", diff)
	}
}

// At most so many are made in one transaction; with as many calls as needed all.
func TestManyPartitions(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	run(t, conn, `
INSERT INTO presence_history (app_id, user_id, state, platforms, observed_at, run_id)
SELECT 1, 'old', 'online', '{}', timestamptz '2026-08-20 12:00+00' + n * interval '24 hours', 1 FROM generate_series(0, 93) AS n`)
	var made []int
	for len(made) == 0 || made[len(made)-1] > 0 {
		made = append(made, makePartitions(t, conn, "day", "2026-11-22 00:00+00", "2026-11-30 00:00+00"))
	}
	if diff := cmp.Diff([]int{50 + 8, 50, 2, 0}, made); diff != "" {
		t.Errorf("made call by call (-want +got):\n%s", diff)
	}
	if places := column[int](t, conn, `SELECT count(DISTINCT tableoid)::int FROM presence_history WHERE tableoid <> 'presence_history_default'::regclass`); places[0] != 94 {
		t.Errorf("the rows are in %d partitions, want 94", places[0])
	}
	var dropped []int
	for len(dropped) == 0 || dropped[len(dropped)-1] > 0 {
		dropped = append(dropped, column[int](t, conn, `SELECT drop_history_partitions('2026-11-24 00:00+00')`)[0])
	}
	if diff := cmp.Diff([]int{50 + 2, 46, 0}, dropped); diff != "" {
		t.Errorf("dropped call by call (-want +got):\n%s", diff)
	}
}

func TestDropHistoryPartitions(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	makePartitions(t, conn, "day", "2026-11-20 00:00+00", "2026-11-24 00:00+00")
	run(t, conn, addTransitionSQL, "old", "2026-11-20 12:00+00")
	run(t, conn, addTransitionSQL, "kept", "2026-11-22 12:00+00")
	run(t, conn, `DROP TABLE presence_history_20261121`)
	run(t, conn, addTransitionSQL, "too old", "2026-11-19 12:00+00")
	run(t, conn, addTransitionSQL, "in the default partition", "2026-11-21 00:00+00")
	run(t, conn, `SET timezone = 'Asia/Shanghai'`)
	drop := func(before string) int {
		t.Helper()
		return column[int](t, conn, `SELECT drop_history_partitions($1::text::timestamptz)`, before)[0]
	}
	// A partition that ends later than the time given holds rows that are kept.
	if dropped := drop("2026-11-20 23:59:59.999999+00"); dropped != 0 {
		t.Errorf("dropped %d partitions that end later", dropped)
	}
	if dropped := drop("2026-11-21 00:00+00"); dropped != 2 {
		t.Errorf("dropped %d, want one of each history", dropped)
	}
	if dropped := drop("2026-11-21 00:00+00"); dropped != 0 {
		t.Errorf("the second call dropped %d", dropped)
	}
	want := []string{
		"presence_history_20261122: FROM ('2026-11-22') TO ('2026-11-23')",
		"presence_history_20261123: FROM ('2026-11-23') TO ('2026-11-24')",
		"presence_history_default: DEFAULT",
	}
	if diff := cmp.Diff(want, partitions(t, conn, "presence_history")); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	got := column[string](t, conn, `SELECT user_id FROM presence_history ORDER BY observed_at`)
	if diff := cmp.Diff([]string{"in the default partition", "kept"}, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	// The newest ends where it ended: nothing is made again.
	if made := makePartitions(t, conn, "day", "2026-11-20 00:00+00", "2026-11-25 00:00+00"); made != 2 {
		t.Errorf("made %d after dropping, want one of each history", made)
	}
}

func TestPartitionsAtOnce(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	const instances = 8
	made, dropped := make([]int, instances), make([]int, instances)
	conns := make([]*pgx.Conn, instances)
	for i := range conns {
		conns[i] = connect(t, url)
	}
	// calls counts what all instances did, each twice: one that comes while another is
	// at it waits a little, and leaves it to that one.
	calls := func(did []int, call string) {
		t.Helper()
		var group errgroup.Group
		for i, conn := range conns {
			group.Go(func() error {
				for range 2 {
					var n *int
					if err := conn.QueryRow(t.Context(), call).Scan(&n); err != nil {
						return err
					}
					if n != nil {
						did[i] += *n
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	calls(made, `SELECT make_history_partitions('day', '2026-11-20', '2026-11-30')`)
	calls(dropped, `SELECT drop_history_partitions('2026-11-22 00:00+00')`)
	sum := func(counts []int) (total int) {
		for _, n := range counts {
			total += n
		}
		return total
	}
	if sum(made) != 20 || sum(dropped) != 4 {
		t.Errorf("made %v, dropped %v; want 20 and 4 in all", made, dropped)
	}
	if n := len(partitions(t, conns[0], "presence_history")); n != 9 {
		t.Errorf("%d partitions are left, want eight days and the default", n)
	}
}
