package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// result is what was measured.
type result struct {
	postgres string // version
	shares   []shareSize
	tables   []tableSize
}

// shareSize is what sweeps of both apps wrote between two checkpoints.
type shareSize struct {
	percent int   // of the users changed from one sweep to the next
	changed int64 // users, in all sweeps
	wal     int64 // bytes of the write-ahead log
}

type tableSize struct {
	Name          string
	Rows          int64
	Heap, Indexes int64 // bytes
}

func (t tableSize) perRow() float64 { return float64(t.Heap+t.Indexes) / float64(max(t.Rows, 1)) }

// table gives a table by name.
func (r *result) table(name string) tableSize {
	for _, t := range r.tables {
		if t.Name == name {
			return t
		}
	}
	return tableSize{}
}

// minutes is how often a day is swept.
const minutes = 24 * 60

// markdown is the result as a page.
func (r *result) markdown(o options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; Postgres %s, %d cores. %s users in each of two apps, %d sweeps of both at each share of changes, from a checkpoint on.\n\n",
		time.Now().Format(time.DateOnly), r.postgres, runtime.NumCPU(), thousands(float64(o.users)), o.sweeps)

	b.WriteString("| table | rows | bytes a row | of them indexes |\n|---|---|---|---|\n")
	for _, t := range r.tables {
		fmt.Fprintf(&b, "| `%s` | %s | %.0f | %.0f |\n", t.Name, thousands(float64(t.Rows)), t.perRow(), float64(t.Indexes)/float64(max(t.Rows, 1)))
	}

	b.WriteString("\n| of the users change | write-ahead log a sweep | a user looked at | a change |\n|---|---|---|---|\n")
	idle := float64(r.shares[0].wal) / float64(o.sweeps)
	for _, s := range r.shares {
		a := float64(s.wal) / float64(o.sweeps)
		change := "–"
		if s.changed > 0 {
			change = fmt.Sprintf("%.0f bytes", (float64(s.wal)-float64(r.shares[0].wal))/float64(s.changed))
		}
		fmt.Fprintf(&b, "| %d %% | %s | %.2f bytes | %s |\n", s.percent, size(a/2), a/float64(2*o.users), change)
	}

	b.WriteString("\nOf a million users, looked at every minute, a day makes:\n\n")
	b.WriteString("| of the users change | transitions | `presence_history` | in 30 days | write-ahead log |\n|---|---|---|---|---|\n")
	for _, s := range r.shares[1:] {
		rows := 1e6 * float64(s.percent) / 100 * minutes
		history := rows * r.table("presence_history").perRow()
		perChange := (float64(s.wal) - float64(r.shares[0].wal)) / float64(max(s.changed, 1))
		fmt.Fprintf(&b, "| %d %% | %s | %s | %s | %s |\n", s.percent, thousands(rows), size(history), size(30*history), size(rows*perChange+idle/2*minutes))
	}
	counts, runs := r.table("presence_count"), r.table("sync_run")
	perRun := (float64(counts.Heap+counts.Indexes) + float64(runs.Heap+runs.Indexes)) / float64(max(runs.Rows, 1))
	fmt.Fprintf(&b, "\nBesides, whatever changes: snapshots of presence and accounts %s, `presence_day` %s a day if everybody is online on it, runs and their counts of an app %s a day.\n",
		size(1e6*(r.table("presence_snapshot").perRow()+r.table("account_snapshot").perRow())),
		size(1e6*r.table("presence_day").perRow()), size(minutes*perRun))
	return b.String()
}

// size writes a number of bytes.
func size(n float64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%.0f bytes", n)
	case n < 10e6:
		return fmt.Sprintf("%.0f kB", n/1e3)
	case n < 10e9:
		return fmt.Sprintf("%s MB", thousands(n/1e6))
	default:
		return fmt.Sprintf("%s GB", thousands(n/1e9))
	}
}

// thousands writes a number with commas.
func thousands(n float64) string {
	digits := fmt.Sprintf("%.0f", n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
