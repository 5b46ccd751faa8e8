package repo_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/repo"
)

// TestReadIsOneLook holds that all of a report comes from one look: what others
// write meanwhile is not in it, and it takes now from as_of.
func TestReadIsOneLook(t *testing.T) {
	b := newBench(t)
	tz := time.FixedZone("UTC+8", 8*3600)
	store := openStore(t, repo.Config{URL: withParameters(t, b.url, "syncer.as_of", "2026-11-22T12:00:00Z"), Schema: "syncer", MaxConns: 1, Process: "report", Location: tz})
	var names [][]string
	var asOf time.Time
	err := store.Read(t.Context(), func(r *repo.Reader) error {
		asOf = r.AsOf
		for range 2 {
			all, err := r.AppNames(t.Context())
			if err != nil {
				return err
			}
			names = append(names, all)
			exec(t, b.conn, `INSERT INTO app (name, provider, created_at) VALUES ('chat', 'openim', now()) ON CONFLICT DO NOTHING`)
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
	b := newBench(t)
	exec(t, b.conn, `
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, max_gap, observed_from, observed_until)
SELECT $1, 'presence', 'presence', 'cron', at, 'succeeded', at, at, true, '1 h', at, at
FROM generate_series('2026-11-22 09:00Z'::timestamptz, '2026-11-22 11:00Z', '1 h') AS at`, b.app.ID)
	store := openStore(t, repo.Config{URL: withParameters(t, b.url, "syncer.as_of", "2026-11-22T12:00:00Z"), Schema: "syncer", MaxConns: 1, Process: "report"})
	clock := func(hour int) time.Time { return time.Date(2026, 11, 22, hour, 0, 0, 0, time.UTC) }
	other := "other"
	tests := []struct {
		name string
		span repo.Span
		want int
	}{
		{"the beginning belongs to it, the end does not", repo.Span{From: clock(9), To: clock(11), Location: time.UTC}, 2},
		{"another app", repo.Span{App: &other, From: clock(9), To: clock(11), Location: time.UTC}, 0},
	}
	err := store.Read(t.Context(), func(r *repo.Reader) error {
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
		days, err := r.ActiveUsers(t.Context(), repo.Span{From: clock(9), To: clock(11).AddDate(1, 0, 0), Location: time.UTC})
		if len(days) != 1 {
			t.Errorf("%d days, want 1: %v", len(days), days)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestGrantReaderSQL holds that the names in it are taken literally.
func TestGrantReaderSQL(t *testing.T) {
	b := newBench(t)
	const role = `x" ; DROP TABLE app; --`
	err := b.store.GrantReader(t.Context(), role)
	want := "there is no role " + role + "; first run: CREATE ROLE " + pgx.Identifier{role}.Sanitize() + " LOGIN PASSWORD '…'"
	if err == nil || err.Error() != want {
		t.Errorf("GrantReader gives %v, want %s", err, want)
	}
}
