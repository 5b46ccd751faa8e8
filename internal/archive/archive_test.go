package archive

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/parquet-go/parquet-go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/migrations"
	"syncer/repo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.M{M: m}) }

// update writes the golden file of the present version.
var update = flag.Bool("update", false, "write testdata/v1.parquet")

// today is when the archiver runs: March and April have ended.
var today = time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)

// bench is a database with two months of history of one app, and a folder.
type bench struct {
	store  *repo.Store
	conn   *pgx.Conn
	folder string
}

// fillDatabase makes a database with partitions of March to May and rows in each.
func fillDatabase(url string) error {
	ctx := context.Background()
	m, err := migrations.Open(ctx, migrations.Config{URL: url, Schema: "syncer"})
	if err != nil {
		return err
	}
	defer m.Close()
	if _, err = m.Up(ctx); err != nil {
		return err
	}
	store, err := repo.Open(ctx, pg.Config{URL: url, Schema: "syncer", MaxConns: 1, Now: func() time.Time { return today }})
	if err != nil {
		return err
	}
	defer store.Close()
	if _, err := store.EnsureApp(ctx, "main", imclient.ProviderTencent, "1400000001"); err != nil {
		return err
	}
	_, err = store.Exec(ctx, `SELECT syncer.make_history_partitions('month', '2026-03-01', '2026-05-21')`)
	for _, statement := range []string{`
INSERT INTO syncer.presence_history (app_id, user_id, prev_state, prev_since, prev_since_after, state, platforms, not_before, observed_at, run_id)
SELECT 1, 'u' || n % 7, CASE WHEN n > 7 THEN 'offline'::syncer.presence_state END, CASE WHEN n > 7 THEN t - interval '2 hours' END,
       CASE WHEN n > 14 THEN t - interval '3 hours' END, 'online', CASE WHEN n % 3 = 0 THEN '{}' ELSE '{"web": "online", "ios": "push_online"}' END::jsonb,
       CASE WHEN n > 7 THEN t - interval '1 minute' END, t, n
FROM generate_series(1, 250) AS n, LATERAL (SELECT timestamptz '2026-03-02 00:00:00.123456Z' + n * interval '7 hours' AS t) AS l`, `
INSERT INTO syncer.account_history (app_id, user_id, prev_status, status, not_before, observed_at, run_id)
SELECT 1, 'ü' || n, CASE WHEN n > 1 THEN 'not_imported'::syncer.account_status END, 'imported', CASE WHEN n > 1 THEN timestamptz '2026-03-01Z' END, '2026-03-05Z', n
FROM generate_series(1, 3) AS n`, `
INSERT INTO syncer.sync_run (app_id, job, kind, trigger, status, started_at, finished_at, observed_from, max_gap, error)
SELECT 1, 'presence', 'presence', 'cron', 'succeeded', t, t + interval '1 minute', t, '3 minutes', 'about u1'
FROM generate_series('2026-03-02Z'::timestamptz, '2026-05-19Z', '1 day') AS t`, `
INSERT INTO syncer.observation_gap VALUES (1, 'presence', '2026-03-10Z', '2026-03-11Z', '2026-03-09Z', '2026-03-12Z', 1)`} {
		if err == nil {
			_, err = store.Exec(ctx, statement)
		}
	}
	return err
}

func newBench(t *testing.T) *bench {
	t.Helper()
	url := pgtest.Template(t, "archive", fillDatabase)
	store, err := repo.Open(t.Context(), pg.Config{URL: url, Schema: "syncer", MaxConns: 2, Process: "test", Now: func() time.Time { return today }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return &bench{store: store, conn: pgtest.Connect(t, url), folder: t.TempDir()}
}

func (b *bench) archiver() *Archiver { return New(b.store, b.folder, zerolog.Nop()) }

// run archives, and returns the files written as "table month rows".
func (b *bench) run(t *testing.T, o Options) []string {
	t.Helper()
	result, err := b.archiver().Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var written []string
	for _, w := range result.Written {
		written = append(written, fmt.Sprintf("%s %s %d", w.Relation, w.Month.Format("2006-01"), w.Rows))
	}
	return written
}

// drop is what the daemon does for a retention that ends in May.
func (b *bench) drop(t *testing.T) int {
	t.Helper()
	dropped, err := b.store.DropArchivedPartitions(t.Context(), time.Date(2026, 5, 15, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

var dropBefore = Options{DropBefore: time.Date(2026, 5, 15, 0, 0, 0, 0, time.UTC)}

const presenceText = `
SELECT concat_ws(' ', user_id, coalesce(prev_state::text, '-'), state, platforms::text, coalesce(to_char(not_before AT TIME ZONE 'UTC', 'MMDD HH24MISS.US'), '-'),
       to_char(observed_at AT TIME ZONE 'UTC', 'MMDD HH24MISS.US'), coalesce(to_char(prev_since AT TIME ZONE 'UTC', 'MMDD HH24MISS.US'), '-'), coalesce(to_char(prev_since_after AT TIME ZONE 'UTC', 'MMDD HH24MISS.US'), '-'), run_id)
FROM presence_history
WHERE observed_at < '2026-05-01Z'
ORDER BY observed_at, user_id`

// inDatabase returns the rows of presence before May that the database has.
func (b *bench) inDatabase(t *testing.T) []string {
	t.Helper()
	return pgtest.Lines(t, b.conn, presenceText)
}

// inFiles returns the rows of presence in all files, in the form of inDatabase.
func (b *bench) inFiles(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(filepath.Join(b.folder, "presence_history"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), temporary) {
			return err
		}
		if _, err := verify[repo.ArchivedPresence](path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		rows, err := parquet.ReadFile[repo.ArchivedPresence](path)
		for _, r := range rows {
			all = append(all, text(&r))
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

func text(r *repo.ArchivedPresence) string {
	at := func(t *time.Time) string {
		if t == nil {
			return "-"
		}
		return t.UTC().Format("0102 150405.000000")
	}
	prev := "-"
	if r.PrevState != nil {
		prev = *r.PrevState
	}
	platforms := "{}"
	if len(r.Platforms) > 0 {
		platforms = fmt.Sprintf(`{"ios": %q, "web": %q}`, r.Platforms["ios"], r.Platforms["web"])
	}
	return strings.Join([]string{r.UserID, prev, r.State, platforms, at(r.NotBefore), at(&r.ObservedAt), at(r.PrevSince), at(r.PrevSinceAfter), fmt.Sprint(r.RunID)}, " ")
}

// TestArchive: what is archived, what is not archived again, what is when rows come late,
// before and after the partitions are dropped, and when a user is erased.
func TestArchive(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	want := b.inDatabase(t)
	if n := b.drop(t); n != 1 {
		t.Errorf("%d partitions were dropped, want only the empty one", n)
	}
	if diff := cmp.Diff([]string{"presence_history 2026-03 102", "presence_history 2026-04 103", "account_history 2026-03 3",
		"sync_run 2026-03 30", "sync_run 2026-04 30", "observation_gap 2026-03 1"}, b.run(t, Options{})); diff != "" {
		t.Errorf("the first time (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, b.inFiles(t)); diff != "" {
		t.Fatalf("rows of the files (-want +got):\n%s", diff)
	}
	for _, o := range []Options{{}, dropBefore, {Again: true}} {
		if written := b.run(t, o); len(written) > 0 {
			t.Errorf("archived again with %+v: %v", o, written)
		}
	}
	if content, err := os.ReadFile(filepath.Join(b.folder, "sync_run/app=main/month=2026-03/part-000.parquet")); err != nil || strings.Contains(string(content), "about") {
		t.Errorf("the runs' errors are archived, or their file is missing: %v", err)
	}

	// Rows come late; a user is erased; a file is damaged. The partitions are not dropped.
	late := func(at string, user string) {
		t.Helper()
		pgtest.Exec(t, b.conn, `INSERT INTO presence_history (app_id, user_id, state, platforms, observed_at, run_id) VALUES (1, $2, 'offline', '{}', $1, 999)`, at, user)
	}
	late("2026-03-20 00:00:00Z", "late")
	pgtest.Exec(t, b.conn, `DELETE FROM presence_history WHERE user_id = 'u3' AND observed_at >= '2026-04-01'`)
	if n := b.drop(t); n != 1 {
		t.Errorf("%d partitions were dropped, want that of the account history, which is unchanged", n)
	}
	want = b.inDatabase(t)
	if written := b.run(t, dropBefore); len(written) != 2 {
		t.Errorf("written: %v", written)
	}
	if diff := cmp.Diff(want, b.inFiles(t)); diff != "" {
		t.Errorf("after late rows and an erasure (-want +got):\n%s", diff)
	}
	march := filepath.Join(b.folder, "presence_history/app=main/month=2026-03/part-000.parquet")
	if err := os.WriteFile(march, []byte("PAR1 but not much more PAR1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if written := b.run(t, dropBefore); len(written) != 1 {
		t.Errorf("a damaged file: written %v", written)
	}
	if n := b.drop(t); n != 2 {
		t.Errorf("%d partitions were dropped, want 2", n)
	}
	if left := b.inDatabase(t); len(left) > 0 {
		t.Errorf("left in the database: %v", left)
	}
	if diff := cmp.Diff(want, b.inFiles(t)); diff != "" {
		t.Errorf("after the drop (-want +got):\n%s", diff)
	}

	// Now they come to the default partition, and are added to the file.
	late("2026-03-20 00:00:00.5Z", "later")
	late("2026-03-20 00:00:00Z", "late") // which the file has: once
	if n := b.drop(t); n != 0 || len(b.inDatabase(t)) != 2 {
		t.Errorf("rows that are not archived were dropped")
	}
	added := b.inDatabase(t)
	if written := b.run(t, dropBefore); len(written) != 1 {
		t.Errorf("written: %v", written)
	}
	b.drop(t)
	want = slices.Compact(sorted(append(want, added...)))
	if diff := cmp.Diff(want, sorted(b.inFiles(t))); diff != "" {
		t.Errorf("after rows that came after the drop (-want +got):\n%s", diff)
	}
	if left := b.inDatabase(t); len(left) > 0 {
		t.Errorf("left in the database: %v", left)
	}

	// A file that alone has rows is not replaced by one without them.
	if err := os.Remove(march); err != nil {
		t.Fatal(err)
	}
	late("2026-03-21Z", "last")
	if _, err := b.archiver().Run(t.Context(), dropBefore); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("the file is gone: %v", err)
	}
	b.drop(t)
	if len(b.inDatabase(t)) != 1 {
		t.Error("a row was dropped that is not archived")
	}
}

var errKilled = errors.New("killed")

// kill archives, and is killed before the n-th thing that it does. It returns the thing, ""
// if there are fewer.
func (b *bench) kill(t *testing.T, n int) (at string) {
	t.Helper()
	a := b.archiver()
	a.step = func(name string) error {
		n--
		if n == 0 {
			at = name
		}
		if n <= 0 {
			return errKilled // and does nothing any more
		}
		return nil
	}
	if _, err := a.Run(t.Context(), dropBefore); err != nil && !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	return at
}

// both returns the rows of the files and the database, each once.
func (b *bench) both(t *testing.T) []string {
	t.Helper()
	return slices.Compact(sorted(append(b.inDatabase(t), b.inFiles(t)...)))
}

// TestArchive_killed: the archiver is interrupted before each thing that it does. What is in
// files and database together is what there was, then and in the end, and no file is half.
func TestArchive_killed(t *testing.T) {
	t.Parallel()
	steps := map[string]int{}
	for n := 1; ; n++ {
		b := newBench(t)
		pgtest.Exec(t, b.conn, `DELETE FROM sync_run; DELETE FROM observation_gap`) // archived in the same way
		want := sorted(b.inDatabase(t))
		at := b.kill(t, n)
		steps[at]++
		b.drop(t) // by another process
		if diff := cmp.Diff(want, b.both(t)); diff != "" {
			t.Fatalf("killed before step %d, %s (-want +got):\n%s", n, at, diff)
		}
		b.run(t, dropBefore)
		b.drop(t)
		if diff := cmp.Diff(want, sorted(b.inFiles(t))); diff != "" {
			t.Fatalf("killed before step %d, %s: rows of the files in the end (-want +got):\n%s", n, at, diff)
		}
		b.clean(t)
		if at == "" {
			break
		}
	}
	for _, name := range []string{"write", "close", "verify", "rename", "record", "apps", "manifest"} {
		if steps[name] == 0 {
			t.Errorf("never killed before %s: %v", name, steps)
		}
	}
}

// clean checks that the folder has nothing of an interrupted process.
func (b *bench) clean(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(b.folder, "*/*/*/"+temporary+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

// TestArchive_killedAddingRows: the same while rows that came after the drop are added to a
// file that alone has the others.
func TestArchive_killedAddingRows(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	want := sorted(b.inDatabase(t))
	b.run(t, dropBefore)
	b.drop(t)
	for n := 1; ; n++ {
		pgtest.Exec(t, b.conn, `INSERT INTO presence_history (app_id, user_id, state, platforms, observed_at, run_id) VALUES (1, 'late', 'offline', '{}', $1, 1)`,
			time.Date(2026, 3, 20, 0, 0, n, 0, time.UTC))
		want = sorted(append(want, b.inDatabase(t)...))
		at := b.kill(t, n)
		b.drop(t)
		if diff := cmp.Diff(want, b.both(t)); diff != "" {
			t.Fatalf("killed before step %d, %s (-want +got):\n%s", n, at, diff)
		}
		b.run(t, dropBefore)
		b.drop(t)
		if diff := cmp.Diff(want, sorted(b.inFiles(t))); diff != "" {
			t.Fatalf("killed before step %d, %s: rows of the files in the end (-want +got):\n%s", n, at, diff)
		}
		b.clean(t)
		if at == "" {
			break
		}
	}
}

func sorted(lines []string) []string { return slices.Sorted(slices.Values(lines)) }

// TestArchive_busy: one process at a time; the folder must be there.
func TestArchive_busy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	unlock, err := b.archiver().lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.archiver().Run(t.Context(), Options{}); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	unlock()
	if written := b.run(t, Options{}); len(written) == 0 {
		t.Error("nothing was written")
	}
	b.folder = filepath.Join(b.folder, "nowhere")
	if _, err := b.archiver().Run(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "make it, or mount it") {
		t.Errorf("no folder: %v", err)
	}
}

// goldenRows are the rows of testdata/v1.parquet.
func goldenRows() []repo.ArchivedPresence {
	at := func(s int) *time.Time { return new(time.Date(2026, 3, 1, 0, 0, s, 123456000, time.UTC)) }
	return []repo.ArchivedPresence{
		{UserID: "anna", State: "online", Platforms: map[string]string{"ios": "online", "web": "push_online"}, ObservedAt: *at(1), RunID: 1},
		{UserID: "anna", PrevState: new("online"), State: "offline", NotBefore: at(2), ObservedAt: *at(3), PrevSince: at(1), RunID: 2},
		{UserID: "ünïcode", PrevState: new("rejected"), State: "push_online", Platforms: map[string]string{"android_pad": "push_online"},
			NotBefore: at(4), ObservedAt: *at(5), PrevSince: at(3), PrevSinceAfter: at(2), RunID: 1 << 40},
	}
}

// TestTold: the times that hooks reported are archived, and count in the hash.
func TestTold(t *testing.T) {
	t.Parallel()
	row := goldenRows()[2]
	var h hasher
	without, _ := h.hash(&row)
	row.ToldAt, row.PrevToldAt = row.NotBefore, row.PrevSince
	if with, _ := h.hash(&row); with == without {
		t.Error("the hash does not tell them apart")
	}
	w, err := newWriter[repo.ArchivedPresence](t.TempDir())
	if err == nil {
		err = errors.Join(w.add(&row), w.close())
	}
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parquet.ReadFile[repo.ArchivedPresence](w.file.Name())
	if err != nil || len(rows) != 1 || !rows[0].ToldAt.Equal(*row.ToldAt) || !rows[0].PrevToldAt.Equal(*row.PrevToldAt) {
		t.Errorf("read back: %+v, %v", rows, err)
	}
}

// TestGolden reads the files of all versions. They are never written again: archives stay
// readable.
func TestGolden(t *testing.T) {
	t.Parallel()
	const golden = "testdata/v1.parquet"
	if *update {
		w, err := newWriter[repo.ArchivedPresence](t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range goldenRows() {
			if err := w.add(&row); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(w.file.Name())
		if err == nil {
			err = os.WriteFile(golden, content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := verify[repo.ArchivedPresence](golden); err != nil {
		t.Fatal(err)
	}
	rows, err := parquet.ReadFile[repo.ArchivedPresence](golden)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	var h hasher
	for i, row := range goldenRows() {
		a, _ := h.hash(&row)
		b, _ := h.hash(&rows[i])
		if a != b {
			t.Errorf("row %d is another one: %+v", i, rows[i])
		}
		want, got = append(want, text(&row)), append(got, text(&rows[i]))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	// The ids are fixed: readers that follow them find the columns after a renaming.
	file, err := os.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f, err := openParquet(file)
	if err != nil {
		t.Fatal(err)
	}
	first := []string{"1 user_id", "2 prev_state", "3 state", "4 platforms", "5 not_before", "6 observed_at", "7 prev_since", "8 prev_since_after", "9 run_id"}
	for _, tc := range []struct {
		schema *parquet.Schema
		want   []string
	}{{f.Schema(), first}, {parquet.SchemaOf(repo.ArchivedPresence{}), append(first, "10 told_at", "11 prev_told_at")}} {
		var ids []string
		for _, field := range tc.schema.Fields() {
			ids = append(ids, fmt.Sprintf("%d %s", field.ID(), field.Name()))
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(tc.want)), slices.Sorted(slices.Values(ids))); diff != "" {
			t.Errorf("field ids (-want +got):\n%s", diff)
		}
	}
}

// TestColumns: a column of a history that is not archived would be lost with its partition.
func TestColumns(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for relation, schema := range map[string]*parquet.Schema{
		"presence_history": parquet.SchemaOf(repo.ArchivedPresence{}), "account_history": parquet.SchemaOf(repo.ArchivedAccount{}),
		"observation_gap": parquet.SchemaOf(repo.ArchivedGap{}),
	} {
		var columns []string
		for _, field := range schema.Fields() {
			columns = append(columns, field.Name())
		}
		slices.Sort(columns)
		want := pgtest.Lines(t, b.conn, fmt.Sprintf(`SELECT attname FROM pg_attribute WHERE attrelid = '%s'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'app_id' ORDER BY attname COLLATE "C"`, relation))
		if diff := cmp.Diff(want, columns); diff != "" {
			t.Errorf("%s: columns of the table and of the file (-table +file): add the column to repo/archive.go with the next id, raise SchemaVersion, and add a golden file\n%s", relation, diff)
		}
	}
}
