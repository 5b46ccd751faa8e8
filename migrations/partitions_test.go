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

// Every time from the first partition on must lie in exactly one partition.
func TestChangedPeriodMakesNoHole(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	for _, step := range []struct{ period, until string }{
		{"month", "2026-12-01"}, {"week", "2026-12-20"}, {"day", "2026-12-24"}, {"week", "2026-12-31"},
		{"month", "2027-02-01"}, {"day", "2027-02-03"}, {"month", "2027-03-01"},
	} {
		makePartitions(t, conn, step.period, "2026-11-22 00:00+00", step.until+" 00:00+00")
	}
	want := []string{
		"presence_history_20261101: FROM ('2026-11-01') TO ('2026-12-01')",
		"presence_history_20261201: FROM ('2026-12-01') TO ('2026-12-07')",
		"presence_history_20261207: FROM ('2026-12-07') TO ('2026-12-14')",
		"presence_history_20261214: FROM ('2026-12-14') TO ('2026-12-21')",
		"presence_history_20261221: FROM ('2026-12-21') TO ('2026-12-22')",
		"presence_history_20261222: FROM ('2026-12-22') TO ('2026-12-23')",
		"presence_history_20261223: FROM ('2026-12-23') TO ('2026-12-24')",
		"presence_history_20261224: FROM ('2026-12-24') TO ('2026-12-28')",
		"presence_history_20261228: FROM ('2026-12-28') TO ('2027-01-04')",
		"presence_history_20270104: FROM ('2027-01-04') TO ('2027-02-01')",
		"presence_history_20270201: FROM ('2027-02-01') TO ('2027-02-02')",
		"presence_history_20270202: FROM ('2027-02-02') TO ('2027-02-03')",
		"presence_history_20270203: FROM ('2027-02-03') TO ('2027-03-01')",
		"presence_history_default: DEFAULT",
	}
	if diff := cmp.Diff(want, partitions(t, conn, "presence_history")); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
}

const addTransitionSQL = `
INSERT INTO presence_history (app_id, user_id, state, platforms, observed_at, run_id)
VALUES (1, $1, 'online', '{}', $2::text::timestamptz, 1)`

func TestRowsInTheDefaultPartition(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	run(t, conn, addTransitionSQL, "early", "2026-12-15 12:00+00")
	if made := makePartitions(t, conn, "month", "2026-11-22 00:00+00", "2027-01-15 00:00+00"); made != 2+3 {
		t.Errorf("made %d partitions, want 5: all but December's of presence_history", made)
	}
	want := []string{
		"presence_history_20261101: FROM ('2026-11-01') TO ('2026-12-01')",
		"presence_history_20270101: FROM ('2027-01-01') TO ('2027-02-01')",
		"presence_history_default: DEFAULT",
	}
	if diff := cmp.Diff(want, partitions(t, conn, "presence_history")); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	run(t, conn, addTransitionSQL, "later", "2026-12-16 12:00+00")
	run(t, conn, addTransitionSQL, "next", "2027-01-01 00:00+00")
	got := column[string](t, conn, `SELECT tableoid::regclass || ' ' || user_id FROM presence_history ORDER BY observed_at`)
	if diff := cmp.Diff([]string{"presence_history_default early", "presence_history_default later", "presence_history_20270101 next"}, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestDropHistoryPartitions(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	makePartitions(t, conn, "day", "2026-11-20 00:00+00", "2026-11-24 00:00+00")
	run(t, conn, addTransitionSQL, "old", "2026-11-20 12:00+00")
	run(t, conn, addTransitionSQL, "kept", "2026-11-22 12:00+00")
	run(t, conn, addTransitionSQL, "never had a partition", "2026-11-19 12:00+00")
	run(t, conn, `SET timezone = 'Asia/Shanghai'`)
	drop := func(before string) int {
		t.Helper()
		return column[int](t, conn, `SELECT drop_history_partitions($1::text::timestamptz)`, before)[0]
	}
	// A partition that ends later than the time given holds rows that are kept.
	if dropped := drop("2026-11-20 23:59:59.999999+00"); dropped != 0 {
		t.Errorf("dropped %d partitions that end later", dropped)
	}
	if dropped := drop("2026-11-22 00:00+00"); dropped != 4 {
		t.Errorf("dropped %d, want two of each history", dropped)
	}
	if dropped := drop("2026-11-22 00:00+00"); dropped != 0 {
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
	if diff := cmp.Diff([]string{"never had a partition", "kept"}, got); diff != "" {
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
	var group errgroup.Group
	for i, conn := range conns {
		group.Go(func() error {
			if err := conn.QueryRow(t.Context(), `SELECT make_history_partitions('day', '2026-11-20', '2026-11-30')`).Scan(&made[i]); err != nil {
				return err
			}
			return conn.QueryRow(t.Context(), `SELECT drop_history_partitions('2026-11-22 00:00+00')`).Scan(&dropped[i])
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
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
