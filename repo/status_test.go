package repo_test

import (
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/dev/pgtest"
	"syncer/repo"
)

// TestStatusWords: statements use the status words that the tables accept, and no others.
func TestStatusWords(t *testing.T) {
	t.Parallel()
	conn := pgtest.Connect(t, migrated(t))
	const wordsSQL = `
SELECT (regexp_matches(pg_get_constraintdef(oid), $$'(\w+)'$$, 'g'))[1]
FROM pg_constraint
WHERE conname = $1
ORDER BY 1`
	runs := []string{string(repo.RunCancelled), string(repo.RunFailed), string(repo.RunPartial), string(repo.RunRunning), string(repo.RunSkipped), string(repo.RunSucceeded)}
	ranges := []string{"done", "failed", "pending", "running"}
	for constraint, want := range map[string][]string{"sync_run_status_check": runs, "sync_range_status_check": ranges} {
		if diff := cmp.Diff(want, pgtest.Lines(t, conn, wordsSQL, constraint)); diff != "" {
			t.Errorf("words of %s (-want +got):\n%s", constraint, diff)
		}
	}
	accounts := []string{"imported", "not_imported", "rejected", "removed"} // they have a status too
	known := slices.Concat(runs, ranges, accounts)
	compared := regexp.MustCompile(`\bstatus\s*(?:=|<>|(?:NOT )?IN)\s*\(?((?:'\w+'(?:, )?)+)`)
	word := regexp.MustCompile(`\w+`)
	found := 0
	for _, s := range statements(t) {
		for _, list := range compared.FindAllStringSubmatch(s.sql, -1) {
			for _, w := range word.FindAllString(list[1], -1) {
				if found++; !slices.Contains(known, w) {
					t.Errorf("%s: unknown status %q", s.name, w)
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d status words were found", found)
	}
}
