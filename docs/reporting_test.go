package docs_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"syncer/internal/dev/pgtest"
	"syncer/migrations"
	"syncer/repo/userstable"
)

// update writes the answers into reporting.md. They are worth only what a reading
// of them against reporting_example.sql, by hand, is worth.
var update = flag.Bool("update", false, "write the answers into reporting.md")

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.M{M: m}) }

func migrate(url string) error {
	ctx := context.Background()
	m, err := migrations.Open(ctx, migrations.Config{URL: url, Schema: "syncer"})
	if err != nil {
		return err
	}
	defer m.Close()
	_, err = m.Up(ctx)
	return err
}

// example gives a connection to a database that holds the example, on which it
// is 20 minutes past midnight of 30 March 2026.
func example(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.Template(t, "docs", migrate))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	data, err := os.ReadFile("reporting_example.sql")
	if err != nil {
		t.Fatal(err)
	}
	// What syncer users-view runs.
	view := userstable.View{Schema: "syncer", Parts: []userstable.ViewPart{{
		App: "main", Config: userstable.Config{Table: []string{"public", "customers"}, KeyColumn: "id", UserID: "im_id"},
	}}}
	for _, statement := range append([]string{
		`SET timezone = 'UTC'`, `SET syncer.as_of = '2026-03-30 00:20+00'`, string(data),
	}, view.SQL(false)...) {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%.60s: %v", statement, err)
		}
	}
	return conn
}

// question is an SQL block of the page and the answer that follows it.
var question = regexp.MustCompile("(?s)```sql\n(.*?)```\n(?:\n```text\n(.*?)```\n)?")

// TestReporting runs every query of reporting.md on the example and compares its
// answer with the one on the page.
func TestReporting(t *testing.T) {
	t.Parallel()
	conn := example(t)
	page, err := os.ReadFile("reporting.md")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	updated := question.ReplaceAllFunc(page, func(block []byte) []byte {
		parts := question.FindSubmatch(block)
		statement := string(parts[1])
		if parts[2] == nil && !strings.HasPrefix(statement, "SELECT") && !strings.HasPrefix(statement, "WITH") {
			return block // a setting, or what an administrator does
		}
		asked++
		got := answer(t, conn, statement)
		if !*update {
			if diff := cmp.Diff(string(parts[2]), got); diff != "" {
				t.Errorf("%s\n(-page +database):\n%s", statement, diff)
			}
		}
		return []byte("```sql\n" + statement + "```\n\n```text\n" + got + "```\n")
	})
	if asked < 15 {
		t.Errorf("only %d questions were found", asked)
	}
	if *update && !bytes.Equal(page, updated) {
		if err := os.WriteFile("reporting.md", updated, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// answer shows the rows of a statement as a table.
func answer(t *testing.T, conn *pgx.Conn, statement string) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), statement, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	defer rows.Close()
	var table [][]string
	var header []string
	for _, column := range rows.FieldDescriptions() {
		header = append(header, column.Name)
	}
	table = append(table, header)
	for rows.Next() {
		var row []string
		for _, value := range rows.RawValues() {
			row = append(row, string(value))
		}
		table = append(table, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	widths := make([]int, len(header))
	for _, row := range table {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range table {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
