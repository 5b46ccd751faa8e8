package report

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/repo/reports"
)

// TestRunsSections: at 80 columns every reason is there in full, and skipped ticks of
// one job that follow each other are one row, also when runs of other jobs stand
// between them.
func TestRunsSections(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	run := func(id int64, app, status string, minute int, reason string) reports.RunRow {
		row := reports.RunRow{App: app, RunID: id, Kind: "presence", Job: "presence", Status: status, StartedAt: noon.Add(time.Duration(minute) * time.Minute)}
		if reason != "" {
			row.Error = &reason
		}
		return row
	}
	long := strings.Repeat("a long reason ", 10) + "with an end"
	sections := RunsSections(Fold([]reports.RunRow{
		run(9, "main", "skipped", 9, ""), run(8, "chat", "failed", 8, long), run(7, "main", "skipped", 7, ""), run(6, "main", "skipped", 6, ""),
		run(5, "main", "succeeded", 5, ""), run(4, "main", "skipped", 4, ""), run(3, "chat", "succeeded", 3, ""),
	}))
	var out strings.Builder
	if err := WriteSections(&out, sections, 80, true); err != nil {
		t.Fatal(err)
	}
	want := `The latest runs, times in UTC

 run  began                app   kind      job       status      took  users  c…
───────────────────────────────────────────────────────────────────────────────…
   9  2026-11-30 12:09:00  main  presence  presence  skipped ×3    0s      0   …
   8  2026-11-30 12:08:00  chat  presence  presence  failed        0s      0   …
   5  2026-11-30 12:05:00  main  presence  presence  succeeded     0s      0   …
   4  2026-11-30 12:04:00  main  presence  presence  skipped       0s      0   …
   3  2026-11-30 12:03:00  chat  presence  presence  succeeded     0s      0   …

Why
 9  the run before was still going, since 2026-11-30 12:06:00
 8  a long reason a long reason a long reason a long reason a long reason a long
    reason a long reason a long reason a long reason a long reason with an end
 4  the run before was still going
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
}
