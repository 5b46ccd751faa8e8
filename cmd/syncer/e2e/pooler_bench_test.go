//go:build pooler

package e2e

import (
	"regexp"
	"testing"
	"time"

	"syncer/internal/imsim"
)

// BenchmarkPooler sweeps, with the real program and no limit of calls, users of whom
// a twentieth has changed since: directly, in the way that is meant for poolers, and
// through one. Looked at is the time between the first and the last page, so that it
// does not matter how soon the work was noticed.
func BenchmarkPooler(b *testing.B) {
	for _, through := range []string{"direct", "direct, poll_only", "PgBouncer"} {
		b.Run(through, func(b *testing.B) {
			const users = 300_000
			w := newWorld(b, worldOptions{users: users, config: noJobs, patience: 10 * time.Minute,
				rounds: &imsim.Rounds{Seed: 3, PresenceShare: 0.05}})
			w.run(exitDone, "migrate", "up")
			w.exec(`ANALYZE public.users`)
			backfill := []string{"SYNCER_LOG_FORMAT=json",
				"SYNCER_APPS_MAIN_TENCENT_PRESENCE_RATE=10000", "SYNCER_SWEEP_RANGE_USERS=50000", "SYNCER_SWEEP_PAGE_USERS=5000",
				"backfill", "--app", "main", "--job", "presence",
			}
			switch through {
			case "PgBouncer":
				w.write("database_url", w.bounce("").url)
				fallthrough
			case "direct, poll_only":
				backfill = append([]string{"SYNCER_DATABASE_POLL_ONLY=true"}, backfill...)
			}
			w.run(exitDone, backfill...)
			var written int
			var took time.Duration
			for b.Loop() {
				w.rounds.SetRound(w.rounds.Round() + 1)
				_, stderr := w.run(exitDone, backfill...)
				pages := pageTimes(b, stderr)
				written += users / len(pages) * (len(pages) - 1)
				took += pages[len(pages)-1].Sub(pages[0])
			}
			b.ReportMetric(float64(written)/took.Seconds(), "users/s")
		})
	}
}

var pageWritten = regexp.MustCompile(`"time":"([^"]+)","message":"page written"`)

func pageTimes(b *testing.B, log string) []time.Time {
	b.Helper()
	var times []time.Time
	for _, found := range pageWritten.FindAllStringSubmatch(log, -1) {
		at, err := time.Parse(time.RFC3339Nano, found[1])
		if err != nil {
			b.Fatal(err)
		}
		times = append(times, at)
	}
	if len(times) < 2 {
		b.Fatalf("%d pages were written", len(times))
	}
	return times
}
