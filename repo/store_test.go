package repo_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/migrations"
	"syncer/repo"
)

func TestCheckSchema(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	store := openStore(t, pg.Config{URL: url, Schema: "syncer", MaxConns: 2, Process: "p"})
	wantOld := func(part string) {
		t.Helper()
		err := store.CheckSchema(t.Context(), migrations.Latest())
		if !errors.Is(err, repo.ErrNoSchema) || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "syncer migrate up") {
			t.Errorf("CheckSchema: %v; want ErrNoSchema, %s", err, part)
		}
	}
	wantOld("at version 0")
	m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: "syncer"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	wantOld("at version 0") // the schema is there, its tables are not
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.CheckSchema(t.Context(), migrations.Latest()); err != nil {
		t.Error(err)
	}
	if err := store.CheckSchema(t.Context(), migrations.Latest()-1); err != nil {
		t.Errorf("a newer schema than needed: %v", err)
	}
	if _, err := m.Down(t.Context(), 12); err != nil {
		t.Fatal(err)
	}
	wantOld("at version 12")
	if err := store.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// Everything works in a schema of another name, beside one of the usual name.
func TestOtherSchema(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	const schema = "im_status"
	m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock := &fakeClock{at: noon}
	b := &bench{url: url, clock: clock, conn: connect(t, url)}
	exec(t, b.conn, `SET search_path = im_status`)
	b.store = openStore(t, pg.Config{URL: url, Schema: schema, MaxConns: 4, Process: "p", Now: clock.Now})
	if b.app, err = b.store.EnsureApp(t.Context(), "main", imclient.ProviderTencent, "1400000001"); err != nil {
		t.Fatal(err)
	}
	if made, err := b.store.MakePartitions(t.Context(), "day", at(3600)); made != 2 || err != nil {
		t.Errorf("MakePartitions = %d, %v; want 2", made, err)
	}
	enqueueThere := func(tx pgx.Tx, run repo.Run, rangeNo int) (jobID int64, err error) {
		err = tx.QueryRow(t.Context(), strings.ReplaceAll(addJobSQL, "syncer.", "im_status."), run.ID, rangeNo).Scan(&jobID)
		return jobID, err
	}
	n := b.backfill(imclient.KindPresence)
	n.Listed = []string{"bob", "alice", "carol"}
	runID, err := b.store.StartRun(t.Context(), n, func(tx pgx.Tx, runID int64) (int64, error) {
		return enqueueThere(tx, repo.Run{ID: runID}, repo.PlanRange)
	})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.AddRange(t.Context(), plan, nil, enqueueThere); err != nil {
		t.Fatal(err)
	}
	r := b.claim(t, runID, 1)
	p := alicePage()
	p.Recovered = []repo.Recovery{{UserID: "carol", AskedAt: at(0)}}
	save(t, b.store.Presence(), r, p, 1)
	if _, err := b.store.Rescue(t.Context(), []int16{b.app.ID}, at(-60), enqueueThere); err != nil {
		t.Error(err)
	}
	if err := b.store.Beat(t.Context()); err != nil {
		t.Error(err)
	}
	b.finish(t, r, "")
	reserve(t, b.store.Quota(b.app.ID, imclient.KindPresence, 10), 1)
	wantLines(t, b.conn, "rows", everythingSQL, "1 1 1 0 -")
	if dropped, err := b.store.DropPartitions(t.Context(), at(24*3600)); dropped != 2 || err != nil {
		t.Errorf("DropPartitions = %d, %v; want 2", dropped, err)
	}
	exec(t, b.conn, `SET search_path = syncer`)
	wantLines(t, b.conn, "rows in the usual schema", `SELECT (SELECT count(*) FROM app), (SELECT count(*) FROM sync_run), (SELECT count(*) FROM river_job), (SELECT count(*) FROM api_quota)`, "0 0 0 0")
}

func TestEnsureApp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stores := []*repo.Store{b.store, b.open(t, "second"), b.open(t, "third")}
	ids := make([]int16, 12)
	var group errgroup.Group
	for i := range ids {
		group.Go(func() error {
			app, err := stores[i%3].EnsureApp(t.Context(), "new", imclient.ProviderOpenIM, "new")
			ids[i] = app.ID
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("the same app has the numbers %d", ids)
	}
	if _, err := b.store.EnsureApp(t.Context(), "new", imclient.ProviderTencent, "new"); err == nil || !strings.Contains(err.Error(), `app "new" was openim so far`) {
		t.Errorf("an app that changed its provider: %v", err)
	}
	if _, err := b.store.FindApp(t.Context(), "nobody"); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("FindApp of none: %v, want pgx.ErrNoRows", err)
	}
	wantLines(t, b.conn, "apps", `SELECT name, provider, created_at FROM app ORDER BY name`, "main tencent 12:00:00", "new openim 12:00:00")
}

func TestListed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	want := []string{" ", "$1", "''", "/* ", "10", "2", "A", "B", "NULL", "a", "b", "back\\slash", "o'neill", "x,y", "z", "{a}", "ß", "é", "北京", "😀"}
	shuffled := slices.Clone(want)
	slices.Reverse(shuffled)
	n := b.backfill(imclient.KindPresence)
	n.Listed = shuffled
	runID := b.start(t, n)
	if run := b.find(t, runID); !run.Listed {
		t.Error("the run is not marked as listed")
	}
	listed := b.store.Listed(runID)
	for _, size := range []int{1, 7, len(want), len(want) + 1} {
		var got []string
		var after *string
		for {
			key, more, err := listed.Cut(t.Context(), after, size)
			if err != nil {
				t.Fatal(err)
			}
			upto := &key
			if !more {
				upto = nil
			}
			for start := after; ; {
				page, err := listed.Page(t.Context(), start, upto, 3)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, page.IDs...)
				if !page.More {
					break
				}
				start = &page.LastKey
			}
			if !more {
				break
			}
			after = upto
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ranges of %d (-want +got):\n%s", size, diff)
		}
	}
	if page, err := b.store.Listed(runID+1).Page(t.Context(), nil, nil, 10); page.Rows != 0 || err != nil {
		t.Errorf("the list of another run: %v, %v", page, err)
	}
}
