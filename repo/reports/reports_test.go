package reports_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/repo/reports"
)

// TestReadIsOneLook holds that all of a report comes from one look: what others
// write meanwhile is not in it, and it takes now from as_of.
func TestReadIsOneLook(t *testing.T) {
	url, conn, _ := newApp(t)
	tz := time.FixedZone("UTC+8", 8*3600)
	db := open(t, pg.Config{URL: pgtest.WithParameters(t, url, "syncer.as_of", "2026-11-22T12:00:00Z"), Location: tz})
	var names [][]string
	var asOf time.Time
	err := reports.Read(t.Context(), db, func(r *reports.Reader) error {
		asOf = r.AsOf
		for range 2 {
			all, err := r.AppNames(t.Context())
			if err != nil {
				return err
			}
			names = append(names, all)
			pgtest.Exec(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('chat', 'openim', now()) ON CONFLICT DO NOTHING`)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]string{{"main"}, {"main"}}, names); diff != "" {
		t.Errorf("apps before and after another one came (-want +got):\n%s", diff)
	}
	if got, want := asOf.Format(time.RFC3339), "2026-11-22T20:00:00+08:00"; got != want {
		t.Errorf("as of %s, want %s", got, want)
	}
}

// TestReadLimits holds how spans limit what is read, at their edges.
func TestReadLimits(t *testing.T) {
	url, conn, appID := newApp(t)
	pgtest.Exec(t, conn, `
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, max_gap, observed_from, observed_until)
SELECT $1, 'presence', 'presence', 'cron', at, 'succeeded', at, at, true, '1 h', at, at
FROM generate_series('2026-11-22 09:00Z'::timestamptz, '2026-11-22 11:00Z', '1 h') AS at`, appID)
	db := open(t, pg.Config{URL: pgtest.WithParameters(t, url, "syncer.as_of", "2026-11-22T12:00:00Z")})
	clock := func(hour int) time.Time { return time.Date(2026, 11, 22, hour, 0, 0, 0, time.UTC) }
	other := "other"
	tests := []struct {
		name string
		span reports.Span
		want int
	}{
		{"the beginning belongs to it, the end does not", reports.Span{From: clock(9), To: clock(11), Location: time.UTC}, 2},
		{"another app", reports.Span{App: &other, From: clock(9), To: clock(11), Location: time.UTC}, 0},
	}
	err := reports.Read(t.Context(), db, func(r *reports.Reader) error {
		for _, test := range tests {
			rows, err := r.Runs(t.Context(), test.span)
			if err != nil {
				return err
			}
			if len(rows) != test.want {
				t.Errorf("%s: %d runs, want %d", test.name, len(rows), test.want)
			}
		}
		// Days that have not begun have no rows.
		days, err := r.ActiveUsers(t.Context(), reports.Span{From: clock(9), To: clock(11).AddDate(1, 0, 0), Location: time.UTC})
		if len(days) != 1 {
			t.Errorf("%d days, want 1: %v", len(days), days)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFirstBucket holds that the time before an app's first run counts as not
// observed in the bucket of that run.
func TestFirstBucket(t *testing.T) {
	url, conn, appID := newApp(t)
	pgtest.Exec(t, conn, `
WITH r AS (
    INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, max_gap, observed_from, observed_until)
    VALUES ($1, 'presence', 'presence', 'cron', '2026-11-22 09:45Z', 'succeeded', '2026-11-22 09:45Z', '2026-11-22 09:45Z', true, '1 h', '2026-11-22 09:45Z', '2026-11-22 09:45Z'),
           ($1, 'presence', 'presence', 'cron', '2026-11-22 10:15Z', 'succeeded', '2026-11-22 10:15Z', '2026-11-22 10:15Z', true, '1 h', '2026-11-22 10:15Z', '2026-11-22 10:15Z')
    RETURNING run_id, started_at
)
INSERT INTO presence_count SELECT $1, run_id, started_at, 'online', 'all', 5 FROM r`, appID)
	db := open(t, pg.Config{URL: pgtest.WithParameters(t, url, "syncer.as_of", "2026-11-22T11:00:00Z")})
	clock := func(hour int) time.Time { return time.Date(2026, 11, 22, hour, 0, 0, 0, time.UTC) }
	err := reports.Read(t.Context(), db, func(r *reports.Reader) error {
		rows, err := r.Concurrency(t.Context(), reports.Span{From: clock(8), To: clock(11), Location: time.UTC}, []time.Time{clock(8), clock(9), clock(10)})
		if err != nil {
			return err
		}
		var got [][3]float64
		for _, row := range rows {
			got = append(got, [3]float64{float64(row.Bucket.UTC().Hour()), row.ObservedSeconds, float64(*row.OnlineMax)})
		}
		if diff := cmp.Diff([][3]float64{{9, 900, 5}, {10, 3600, 5}}, got); diff != "" {
			t.Errorf("hour, observed seconds, online (-want +got):\n%s", diff)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAccountsAsOf holds that a present in the past knows no later change.
func TestAccountsAsOf(t *testing.T) {
	url, conn, appID := newApp(t)
	pgtest.Exec(t, conn, `
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, observed_from, observed_until)
SELECT $1, 'accounts', 'accounts', 'cron', at, 'succeeded', at, at, true, at, at
FROM generate_series('2026-11-20 08:00Z'::timestamptz, '2026-11-23 08:00Z', '1 day') AS at`, appID)
	for _, change := range []struct{ user, prev, status, at string }{
		{"ann", "", "imported", "2026-11-20 08:00Z"},
		{"bob", "", "not_imported", "2026-11-20 08:00Z"},
		{"bob", "not_imported", "imported", "2026-11-21 08:00Z"},
		{"bob", "imported", "removed", "2026-11-21 20:00Z"}, // after the present, on its day
		{"cho", "", "imported", "2026-11-22 08:00Z"},
		{"ann", "imported", "not_imported", "2026-11-23 08:00Z"},
	} {
		pgtest.Exec(t, conn, `INSERT INTO account_history (app_id, user_id, prev_status, status, not_before, observed_at, run_id)
VALUES ($1, $2, nullif($3, '')::account_status, $4, CASE WHEN $3 <> '' THEN $5::text::timestamptz END, $5::text::timestamptz, 1)`, appID, change.user, change.prev, change.status, change.at)
	}
	pgtest.Exec(t, conn, `INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id) VALUES
($1, 'ann', 'not_imported', '2026-11-23 08:00Z', '2026-11-23 08:00Z', 1), ($1, 'cho', 'imported', '2026-11-22 08:00Z', '2026-11-22 08:00Z', 1)`, appID)
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	row := func(day string, imported, notImported, firstSeen, became, gone int64) reports.AccountsRow {
		return reports.AccountsRow{App: "main", Day: day, Imported: imported, NotImported: notImported, FirstSeen: firstSeen, BecameImported: became, Gone: gone}
	}
	for _, test := range []struct {
		asOf string
		want []reports.AccountsRow
	}{
		{"2026-11-21T12:00:00Z", []reports.AccountsRow{row("2026-11-20", 1, 1, 2, 0, 0), row("2026-11-21", 2, 0, 0, 1, 0)}},
		{"2026-11-22T12:00:00Z", []reports.AccountsRow{row("2026-11-20", 1, 1, 2, 0, 0), row("2026-11-21", 1, 0, 0, 1, 1), row("2026-11-22", 2, 0, 1, 0, 0)}},
	} {
		db := open(t, pg.Config{URL: pgtest.WithParameters(t, url, "syncer.as_of", test.asOf)})
		err := reports.Read(t.Context(), db, func(r *reports.Reader) error {
			rows, err := r.Accounts(t.Context(), reports.Span{From: day(20), To: day(25), Location: time.UTC})
			if diff := cmp.Diff(test.want, rows); diff != "" {
				t.Errorf("as of %s (-want +got):\n%s", test.asOf, diff)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
