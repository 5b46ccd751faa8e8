package duckdb

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	_ "github.com/duckdb/duckdb-go/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"syncer/internal/archive"
	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/migrations"
	"syncer/repo"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const docs = "../../../docs/"

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// archived archives the example of docs/reporting.md, and drops its histories. It returns the
// folder, and what presence_history was.
func archived(t *testing.T) (folder string, rows []string) {
	t.Helper()
	ctx := t.Context()
	url := pgtest.Template(t, "duckdb", func(url string) error {
		m, err := migrations.Open(context.Background(), migrations.Config{URL: url, Schema: "syncer"})
		if err != nil {
			return err
		}
		defer m.Close()
		_, err = m.Up(context.Background())
		return err
	})
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, read(t, docs+"reporting_example.sql"))
	pgtest.Exec(t, conn, `SELECT make_history_partitions('month', '2026-03-01', '2026-05-01')`)
	const historySQL = `
SELECT concat_ws(' ', a.name, h.user_id, h.prev_state, h.state, h.platforms, (extract(epoch FROM h.not_before) * 1000000)::bigint, (extract(epoch FROM h.observed_at) * 1000000)::bigint,
       (extract(epoch FROM h.prev_since) * 1000000)::bigint, (extract(epoch FROM h.prev_since_after) * 1000000)::bigint, h.run_id)
FROM presence_history AS h
JOIN app AS a USING (app_id)`
	rows = pgtest.Lines(t, conn, historySQL)
	slices.Sort(rows)
	store, err := repo.Open(ctx, pg.Config{URL: url, Schema: "syncer", MaxConns: 2, Process: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	folder = t.TempDir()
	if _, err := archive.New(store, folder, zerolog.Nop()).Run(ctx, archive.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.DropArchivedPartitions(ctx, time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	if left := pgtest.Lines(t, conn, historySQL+` UNION ALL SELECT user_id FROM account_history`); len(left) > 0 {
		t.Fatalf("left in the database: %v", left)
	}
	return folder, rows
}

// question is a heading of a page, the statement below it, and the answer, "" if there is
// none.
type question struct{ heading, statement, answer string }

func questions(page string) (all []question) {
	for _, section := range strings.Split(page, "\n### ")[1:] {
		heading, rest, _ := strings.Cut(section, "\n")
		_, rest, _ = strings.Cut(rest, "```sql\n")
		statement, rest, _ := strings.Cut(rest, "```\n")
		answer, _ := strings.CutPrefix(rest, "\n```text\n")
		answer, _, _ = strings.Cut(answer, "```")
		all = append(all, question{heading, statement, answer})
	}
	return all
}

// TestQuestions asks the questions of docs/archive.md, and compares the answers with those of
// docs/reporting.md, which Postgres gave before the histories were dropped.
func TestQuestions(t *testing.T) {
	folder, _ := archived(t)
	db, err := sql.Open("duckdb", "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // settings and views are its own
	page := strings.ReplaceAll(read(t, docs+"archive.md"), "/var/lib/syncer/archive", folder)
	_, views, ok := strings.Cut(page, "<!-- views -->\n\n```sql\n")
	views, _, found := strings.Cut(views, "```")
	if !ok || !found {
		t.Fatal("archive.md has no views")
	}
	if _, err := db.ExecContext(t.Context(), views); err != nil {
		t.Fatalf("%v\n%s", err, views)
	}
	answers := map[string]string{}
	for _, q := range questions(read(t, docs+"reporting.md")) {
		answers[q.heading] = q.answer
	}
	asked := 0
	for _, q := range questions(page) {
		asked++
		want, ok := answers[q.heading]
		if !ok {
			t.Errorf("reporting.md does not ask: %s", q.heading)
			continue
		}
		if diff := cmp.Diff(lines(want), answer(t, db, q.statement)); diff != "" {
			t.Errorf("%s (-Postgres +DuckDB):\n%s\n%s", q.heading, diff, q.statement)
		}
	}
	if asked < 8 {
		t.Errorf("only %d questions were found", asked)
	}
}

// lines returns the fields of the rows of an answer, without the heads of the columns.
func lines(text string) (all []string) {
	for line := range strings.Lines(text) {
		all = append(all, strings.Join(regexp.MustCompile(`  +`).Split(strings.TrimSpace(line), -1), " | "))
	}
	return all
}

func answer(t *testing.T, db *sql.DB, statement string) []string {
	t.Helper()
	statement = strings.TrimRight(strings.TrimSpace(statement), ";")
	rows, err := db.QueryContext(t.Context(), "SELECT COLUMNS(*)::VARCHAR FROM ("+statement+")")
	if err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	all := []string{strings.Join(columns, " | ")}
	for rows.Next() {
		values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, v := range values {
			texts = append(texts, v.String)
		}
		all = append(all, strings.TrimRight(strings.Join(texts, " | "), " |")) // as lines does
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestArrow reads the files with Apache Arrow, and compares every value with Postgres'.
func TestArrow(t *testing.T) {
	folder, want := archived(t)
	paths, err := filepath.Glob(filepath.Join(folder, "presence_history/app=*/month=*/*.parquet"))
	if err != nil || len(paths) != 2 {
		t.Fatalf("files %v, %v", paths, err)
	}
	var got []string
	for _, path := range paths {
		app := regexp.MustCompile(`app=(\w+)`).FindStringSubmatch(path)[1]
		got = append(got, arrowRows(t, path, app)...)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-Postgres +Arrow):\n%s", diff)
	}
}

func arrowRows(t *testing.T, path, app string) (all []string) {
	t.Helper()
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	reader, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	table, err := reader.ReadTable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	records := array.NewTableReader(table, 0)
	defer records.Release()
	for records.Next() {
		text, err := records.RecordBatch().MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var rows []struct {
			UserID    string                        `json:"user_id"`
			PrevState *string                       `json:"prev_state"`
			State     string                        `json:"state"`
			Platforms []struct{ Key, Value string } `json:"platforms"`
			NotBefore *string                       `json:"not_before"`
			Observed  *string                       `json:"observed_at"`
			Since     *string                       `json:"prev_since"`
			After     *string                       `json:"prev_since_after"`
			RunID     int64                         `json:"run_id"`
		}
		if err := json.Unmarshal(text, &rows); err != nil {
			t.Fatalf("%v\n%.300s", err, text)
		}
		for _, r := range rows {
			words := []string{app, r.UserID}
			add := func(s *string) {
				if s != nil {
					words = append(words, *s)
				}
			}
			add(r.PrevState)
			words = append(words, r.State)
			platforms := map[string]string{}
			for _, p := range r.Platforms {
				platforms[p.Key] = p.Value
			}
			words = append(words, jsonb(platforms))
			for _, at := range []*string{r.NotBefore, r.Observed, r.Since, r.After} {
				add(micros(t, at))
			}
			all = append(all, strings.Join(append(words, fmt.Sprint(r.RunID)), " "))
		}
	}
	return all
}

// jsonb spells platforms as Postgres does: shorter keys first.
func jsonb(platforms map[string]string) string {
	var keys []string
	for key := range platforms {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for i, key := range keys {
		keys[i] = fmt.Sprintf("%q: %q", key, platforms[key])
	}
	return "{" + strings.Join(keys, ", ") + "}"
}

// micros returns a time of Arrow in microseconds since 1970.
func micros(t *testing.T, text *string) *string {
	t.Helper()
	if text == nil {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, strings.Replace(*text, " ", "T", 1))
	if err != nil {
		t.Fatal(err)
	}
	s := fmt.Sprint(at.UnixMicro())
	return &s
}
