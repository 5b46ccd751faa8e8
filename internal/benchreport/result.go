package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// result is what was measured.
type result struct {
	postgres            string // version
	rows                []timing
	tables              []tableSize
	indexes             []indexSize
	sweepRows           int64 // transitions of the hour of sweeps
	walWith, walWithout int64 // bytes of the write-ahead log for it
}

type timing struct {
	group, what string
	target      time.Duration // of the median; 0: none
	times       []time.Duration
}

func (t timing) median() time.Duration { return t.times[len(t.times)/2] }

func (t timing) missed() bool { return t.target > 0 && t.median() > t.target }

// verdict returns how the median and its target compare, in one word.
func (t timing) verdict() string {
	switch {
	case t.target == 0:
		return ""
	case t.missed():
		return "short"
	default:
		return "pass"
	}
}

type tableSize struct {
	Name          string
	Rows          int64
	Heap, Indexes int64 // bytes
}

type indexSize struct {
	Name  string
	Bytes int64
}

func (r *result) add(t timing) {
	slices.Sort(t.times)
	r.rows = append(r.rows, t)
}

// missed returns how many medians are above their target.
func (r *result) missed() int {
	n := 0
	for _, row := range r.rows {
		if row.missed() {
			n++
		}
	}
	return n
}

// markdown is the result as a page.
func (r *result) markdown(o options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %d cores, %sPostgres %s with its own settings (fsync is off, which only writing notices).\n",
		time.Now().Format(time.DateOnly), runtime.NumCPU(), memory(), r.postgres)
	fmt.Fprintf(&b, "%s users for %d days, looked at every minute: %s transitions. Each thing %d times after a first one that does not count.\n\n",
		thousands(int64(o.users)), o.days, thousands(r.tables[0].Rows), o.repeat)
	b.WriteString("| | | target | median | least | most | |\n|---|---|---|---|---|---|---|\n")
	group := ""
	for _, row := range r.rows {
		name := row.group
		if name == group {
			name = ""
		}
		group = row.group
		target := ""
		if row.target > 0 {
			target = "≤ " + seconds(row.target)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", name, row.what, target,
			seconds(row.median()), seconds(row.times[0]), seconds(row.times[len(row.times)-1]), row.verdict())
	}
	fmt.Fprintf(&b, "\nThe hour of sweeps writes %s transitions in 60 runs, and %s to the write-ahead log; without the indexes for reports %s.\n",
		thousands(r.sweepRows), megabytes(r.walWith), megabytes(r.walWithout))
	b.WriteString("\n| table | rows | table | indexes |\n|---|---|---|---|\n")
	for _, t := range r.tables {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", t.Name, thousands(t.Rows), megabytes(t.Heap), megabytes(t.Indexes))
	}
	b.WriteString("\n| index | size |\n|---|---|\n")
	for _, i := range r.indexes {
		fmt.Fprintf(&b, "| `%s` | %s |\n", i.Name, megabytes(i.Bytes))
	}
	return b.String()
}

// memory is the machine's, where Linux tells it.
func memory() string {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var kilobytes int64
		if n, _ := fmt.Sscanf(lines.Text(), "MemTotal: %d kB", &kilobytes); n == 1 {
			return fmt.Sprintf("%d GB of memory, ", (kilobytes+1<<19)>>20)
		}
	}
	return ""
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func megabytes(bytes int64) string {
	if bytes < 10<<20 {
		return fmt.Sprintf("%.1f MB", float64(bytes)/(1<<20))
	}
	return thousands((bytes+1<<19)>>20) + " MB"
}

// thousands writes a number with commas.
func thousands(n int64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
