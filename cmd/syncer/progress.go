package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"syncer/internal/report"
	"syncer/repo"
)

// meter measures a run's speed since this process started to watch it, without what a
// resumed backfill did before.
type meter struct {
	since        time.Time
	users, calls int64 // at that time
}

func newMeter(run repo.Run, now time.Time) *meter {
	return &meter{since: now, users: run.Users, calls: run.Calls}
}

// pace is the progress and speed of a run.
type pace struct {
	name         string
	users, total int64         // total is 0 if unknown
	usersPerSec  float64       // since newMeter
	callsPerSec  float64       // since newMeter
	callLimit    float64       // calls per second of all processes
	left         time.Duration // 0 if unknown
}

// pace measures a run.
func (m *meter) pace(name string, run repo.Run, total int64, callLimit float64, now time.Time) pace {
	p := pace{name: name, users: run.Users, total: total, callLimit: callLimit}
	elapsed := now.Sub(m.since).Seconds()
	if elapsed <= 0 {
		return p
	}
	p.usersPerSec, p.callsPerSec = float64(run.Users-m.users)/elapsed, float64(run.Calls-m.calls)/elapsed
	if total > run.Users && p.usersPerSec > 0 {
		p.left = time.Duration(float64(total-run.Users) / p.usersPerSec * float64(time.Second))
	}
	return p
}

func (p pace) percent() string {
	if p.total <= 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", min(100*p.users/p.total, 100))
}

func (p pace) rate() string { return report.Count(int64(p.usersPerSec)) + " users/s" }

// calls shows the use of the quota, which usually limits the speed.
func (p pace) calls() string {
	if p.callLimit <= 0 {
		return ""
	}
	return fmt.Sprintf("%.0f of %.0f calls/s", p.callsPerSec, p.callLimit)
}

func (p pace) remaining() string {
	if p.left <= 0 {
		return ""
	}
	return roughly(p.left) + " left"
}

func (p pace) count() string {
	if p.total <= 0 {
		return report.Count(p.users) + " users"
	}
	return report.Count(p.users) + " of " + report.Count(p.total) + " users"
}

// String returns the pace as one line of any length.
func (p pace) String() string {
	text := p.name + ": " + p.count()
	if p.total > 0 {
		text += " (" + p.percent() + ")"
	}
	for _, part := range []string{p.rate(), p.calls(), p.remaining()} {
		if part != "" {
			text += ", " + part
		}
	}
	return text
}

// line returns the pace as one line of at most width columns, with a bar if there is room.
// It drops the least important parts first.
func (p pace) line(width int) string {
	const (
		between  = 2 // columns
		leastBar = 10
		mostBar  = 30
	)
	// In the order in which they are shown; keep is the order in which they are kept.
	parts := []struct {
		text string
		keep int
	}{{p.percent(), 0}, {p.count(), 4}, {p.rate(), 1}, {p.calls(), 3}, {p.remaining(), 2}}
	name := cutTo(p.name, max(width-between-len("100%"), 8))
	room := width - utf8.RuneCountInString(name)
	kept := make([]bool, len(parts))
	for keep := range parts {
		for i, part := range parts {
			if part.keep == keep && part.text != "" && len(part.text)+between <= room {
				kept[i] = true
				room -= len(part.text) + between
			}
		}
	}
	text := name
	if length := min(room-between, mostBar); p.total > 0 && length >= leastBar {
		text += "  " + bar(p.users, p.total, length)
	}
	for i, part := range parts {
		if kept[i] {
			text += "  " + part.text
		}
	}
	return text
}

func bar(done, of int64, length int) string {
	full := int(min(done*int64(length)/of, int64(length)))
	return strings.Repeat("█", full) + strings.Repeat("░", length-full)
}

// cutTo shortens a text to a number of columns.
func cutTo(s string, columns int) string {
	if utf8.RuneCountInString(s) <= columns {
		return s
	}
	return string([]rune(s)[:columns-1]) + "…"
}
