package e2e

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgtest"
	"syncer/internal/report"
	"syncer/repo/reports"
)

// TestCSV_foreignReader holds that another reader of CSV, Postgres' COPY, finds the
// bytes of every text as they were.
func TestCSV_foreignReader(t *testing.T) {
	t.Parallel()
	texts := []string{
		"plain", "line\nfeed", "carriage\rreturn", "both\r\nof them", "\rfirst", "last\n", `quo"ted`, `"`, "com,ma", " blank ", `\.`, `\N`, "'",
		"tab\there", "=1+1", "+49", "-", "@here", "\u202eright to left", "\x1b[31mred", "日本",
	}
	var rows []reports.SessionRow
	for _, text := range texts {
		rows = append(rows, reports.SessionRow{App: "main", UserID: text, StartedAt: time.Unix(0, 0).UTC()})
	}
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	read := func(forSpreadsheet bool) []string {
		t.Helper()
		var csv bytes.Buffer
		if err := report.WriteCSV(&csv, rows, forSpreadsheet); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), `DROP TABLE IF EXISTS session;
CREATE TABLE session (no serial, app text, user_id text, started_after text, started_at text, ended_after text, ended_at text, known text, estimated text, ended_by text)`); err != nil {
			t.Fatal(err)
		}
		const copySQL = `COPY session (app, user_id, started_after, started_at, ended_after, ended_at, known, estimated, ended_by) FROM STDIN (FORMAT csv, HEADER)`
		if _, err := conn.PgConn().CopyFrom(t.Context(), &csv, copySQL); err != nil {
			t.Fatal(err)
		}
		got, err := conn.Query(t.Context(), `SELECT user_id FROM session ORDER BY no`)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(got, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if diff := cmp.Diff(texts, read(false)); diff != "" {
		t.Errorf("texts (-written +read):\n%s", diff)
	}
	neutral := map[string]bool{"\rfirst": true, "=1+1": true, "+49": true, "-": true, "@here": true}
	var want []string
	for _, text := range texts {
		if neutral[text] {
			text = "'" + text
		}
		want = append(want, text)
	}
	if diff := cmp.Diff(want, read(true)); diff != "" {
		t.Errorf("texts for a spreadsheet (-want +read):\n%s", diff)
	}
}
