package report

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/repo/reports"
)

// TestDurations holds that the line of durations breaks over a gap and at a run
// that did not go through, and that a skipped tick leaves it alone.
func TestDurations(t *testing.T) {
	tz := berlin(t)
	at := func(hour, minute int) time.Time { return time.Date(2026, 10, 22, hour, minute, 0, 0, tz) }
	h := Head{Span: reports.Span{From: at(0, 0), To: at(23, 0), Location: tz}, AsOf: at(23, 0)}
	run := func(hour, minute int, status string, seconds float64) reports.RunRow {
		return reports.RunRow{App: "main", Kind: "presence", Status: status, StartedAt: at(hour, minute), Seconds: seconds}
	}
	rows := []reports.RunRow{ // the newest first
		run(15, 0, "succeeded", 0.25), run(14, 0, "partial", 2), run(13, 0, "failed", 300), run(12, 0, "succeeded", 1), run(8, 1, "skipped", 0), run(8, 0, "succeeded", 1),
	}
	gaps := []reports.GapRow{
		{App: "main", Kind: "accounts", StartedAt: at(7, 0), EndedAt: ptr(at(20, 0))},
		{App: "main", Kind: "presence", StartedAt: at(8, 1), EndedAt: ptr(at(12, 0))},
	}
	c := h.durations(rows, gaps)
	hours := func(x []float64) (all []float64) {
		for _, v := range x {
			all = append(all, (v-seconds(at(0, 0)))/3600)
		}
		return all
	}
	if diff := cmp.Diff([]float64{8, 8 + 1.0/60, 12, 13, 14, 15}, hours(c.X)); diff != "" {
		t.Errorf("hours (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]*float64{ptr(1.0), nil, ptr(1.0), nil, ptr(2.0), ptr(0.25)}, c.Series[0].Values); diff != "" {
		t.Errorf("durations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][2]float64{{seconds(at(8, 1)), seconds(at(12, 0))}}, c.Gaps); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

// TestDailyChart_partialDays holds that the axis of a chart by day has whole days, so
// that no value lies outside of it.
func TestDailyChart_partialDays(t *testing.T) {
	tz := berlin(t)
	at := func(day, hour int) time.Time { return time.Date(2026, 10, day, hour, 30, 0, 0, tz) }
	h := Head{Span: reports.Span{From: at(22, 18), To: at(24, 6), Location: tz}, AsOf: at(24, 6)}
	c := h.dailyChart("x", "line", "users")
	got := []float64{(seconds(at(22, 0)) - c.From) / 60, (c.To - seconds(at(24, 23))) / 60}
	if diff := cmp.Diff([]float64{30, 30}, got); diff != "" {
		t.Errorf("minutes from the first midnight, and to the last (-want +got):\n%s", diff)
	}
	if first := h.middle("2026-10-22"); first < c.From {
		t.Errorf("the first value is at %v, before the axis begins at %v", first, c.From)
	}
}
