package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgcluster"
	"syncer/internal/dev/pgtest"
)

var release = flag.String("release", "", "write testdata/releases/`VERSION` with the schema and the answers of today")

// A release's folder in releasesDir has the database of docs/reporting_example.sql in the
// schema of that version (releaseDump), and what its commands printed (releaseAnswers).
const (
	releasesDir = "testdata/releases"
	releaseDump = "database.sql.gz"
	releaseAsOf = "2026-03-30T00:20:00Z"
)

// releaseAnswers are the commands whose answers an upgrade must not change, by file.
var releaseAnswers = map[string][]string{
	"all.json.gz":      {"report", "all", "--users", "--from", "2026-03-02", "--to", "2026-03-30", "--tz", "Europe/Berlin", "--format", "json"},
	"inactive.json.gz": {"report", "inactive", "--days", "7", "--format", "json"},
}

// rounding allows for sums of floats in another order.
var rounding = cmpopts.EquateApprox(1e-9, 0)

// TestReleases checks that a database of each released version migrates to today's schema,
// the same that a new database has, and that the reports' numbers stay the same. Newer
// programs may add keys.
func TestReleases(t *testing.T) {
	t.Parallel()
	if *release != "" {
		writeRelease(t, filepath.Join(releasesDir, *release))
	}
	folders, err := filepath.Glob(filepath.Join(releasesDir, "*"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("no release in %s: %v", releasesDir, err)
	}
	fresh := newWorld(t, worldOptions{})
	fresh.run(exitDone, "migrate", "up")
	want := fresh.schema()
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			if filepath.Base(folder) == "unreleased" {
				t.Cleanup(func() {
					if t.Failed() {
						t.Log("if a migration that is not released was edited, run: make release-fixture VERSION=unreleased")
					}
				})
			}
			w := newWorld(t, worldOptions{})
			script(t, w.dbURL, unpacked(t, filepath.Join(folder, releaseDump)))
			w.run(exitDone, "migrate", "up")
			if diff := cmp.Diff(want, w.schema()); diff != "" {
				t.Errorf("the schema (-of a new database +migrated from %s):\n%s", filepath.Base(folder), diff)
			}
			for file, got := range w.answers() {
				path := filepath.Join(folder, file)
				if _, err := os.Stat(path); os.IsNotExist(err) {
					continue // a command that this version did not have
				}
				before, after := decoded(t, unpacked(t, path)), decoded(t, got)
				if diff := cmp.Diff(before, known(before, after), rounding); diff != "" {
					t.Errorf("syncer %s (-then +now):\n%s", strings.Join(releaseAnswers[file], " "), diff)
				}
			}
		})
	}
}

// writeRelease makes the folder of a release.
func writeRelease(t *testing.T, folder string) {
	t.Helper()
	w := newWorld(t, worldOptions{})
	w.run(exitDone, "migrate", "up")
	example, err := os.ReadFile("../../../docs/reporting_example.sql")
	if err != nil {
		t.Fatal(err)
	}
	script(t, w.dbURL, "SET timezone = 'UTC';\n"+string(example))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	files := w.answers()
	files[releaseDump] = dump(t, w.dbURL, "--inserts", "--rows-per-insert=1000")
	for name, text := range files {
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(z, text); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), packed.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// unpacked returns the text of a compressed file.
func unpacked(t *testing.T, name string) string {
	t.Helper()
	packed, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(text)
}

// schema returns what pg_dump prints of the schema, without the partitions, which depend on the
// day. It dumps a copy, because Postgres prints a view differently after a dump was loaded.
func (w *world) schema() string {
	w.t.Helper()
	options := []string{"--schema-only", "--exclude-table=syncer.*_history_[0-9]*"}
	copied := pgtest.Database(w.t)
	script(w.t, copied, dump(w.t, w.dbURL, options...))
	return dump(w.t, copied, options...)
}

// script runs statements on a connection of its own, because they change its settings.
func script(t testing.TB, url, statements string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.PgConn().Exec(t.Context(), statements).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// psqlOnly are the lines of a dump that only psql reads. Their key differs from dump to dump.
var psqlOnly = regexp.MustCompile(`(?m)^\\(un)?restrict .*\n`)

// dump returns what pg_dump prints of syncer's schema.
func dump(t testing.TB, url string, options ...string) string {
	t.Helper()
	programs, err := pgcluster.Find()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs.Dir, "pg_dump"),
		append([]string{"--schema=syncer", "--no-owner", "--no-privileges", "--dbname=" + url}, options...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("pg_dump: %v\n%s", err, stderr.String())
	}
	return psqlOnly.ReplaceAllString(string(out), "")
}

// answers returns what the commands of releaseAnswers print.
func (w *world) answers() map[string]string {
	w.t.Helper()
	answers := map[string]string{}
	for file, args := range releaseAnswers {
		stdout, _ := w.run(exitDone, append([]string{"SYNCER_DATABASE_URL=" + w.withParameter("syncer.as_of", releaseAsOf)}, args...)...)
		answers[file] = stdout
	}
	return answers
}

func decoded(t *testing.T, text string) (value any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return value
}

// known returns after without the keys that before does not have at the same place.
func known(before, after any) any {
	switch after := after.(type) {
	case map[string]any:
		old, ok := before.(map[string]any)
		if !ok {
			return after
		}
		kept := map[string]any{}
		for key, value := range after {
			if was, ok := old[key]; ok {
				kept[key] = known(was, value)
			}
		}
		return kept
	case []any:
		old, _ := before.([]any)
		kept := make([]any, len(after))
		for i, value := range after {
			kept[i] = value
			if i < len(old) {
				kept[i] = known(old[i], value)
			}
		}
		return kept
	}
	return after
}
