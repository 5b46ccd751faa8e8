package report

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
)

// minute formats a time for tables; the heading names the zone.
func minute(t time.Time) string { return t.Format("2006-01-02 15:04") }

// weekday appends the day of the week to a date.
func weekday(day string) string {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return day
	}
	return t.Format("2006-01-02 Mon")
}

// Count formats a number with separators: 1,234,567.
func Count(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// some formats a number of things, named in the singular.
func some(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return Count(n) + " " + what
}

// average formats an average: 1,235 or 7.3.
func average(v float64) string {
	if v < 99.95 && v != math.Trunc(v) {
		return fmt.Sprintf("%.1f", v)
	}
	return Count(int64(math.Round(v)))
}

// percent formats a share.
func percent(share float64) string {
	switch p := 100 * share; {
	case p > 0 && p < 0.05:
		return "< 0.1 %"
	case p < 100 && p > 99.95:
		return "> 99.9 %"
	default:
		return fmt.Sprintf("%.1f %%", p)
	}
}

// length formats a duration in its two largest units: 3d 4h, 2h 5m, 45s.
func length(seconds float64) string {
	if seconds < 10 && seconds != math.Trunc(seconds) {
		return fmt.Sprintf("%.1fs", seconds)
	}
	s := int64(math.Round(seconds))
	switch {
	case s >= 86_400:
		return fmt.Sprintf("%sd %dh", Count(s/86_400), s%86_400/3600)
	case s >= 3600:
		return fmt.Sprintf("%dh %dm", s/3600, s%3600/60)
	case s >= 60:
		return fmt.Sprintf("%dm %ds", s/60, s%60)
	default:
		return fmt.Sprintf("%ds", s)
	}
}

// bar draws a share as blocks, ten for all.
func bar(share float64) string {
	const eighths = " ▏▎▍▌▋▊▉"
	n := int(math.Round(80 * min(share, 1)))
	s := strings.Repeat("█", n/8)
	if n%8 > 0 {
		s += string([]rune(eighths)[n%8])
	}
	return s
}

// shorten truncates a long text.
func shorten(s string, limit int) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > limit {
		return string(r[:limit-1]) + "…"
	}
	return s
}

// Printable replaces what a terminal would interpret: control sequences, line breaks,
// marks that change the direction of writing. All texts for people that contain
// external data pass through it: keys, ids, messages of databases and providers.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, s)
}

// PrintableLines is Printable for a text of several lines, which may contain tabs.
func PrintableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		parts := strings.Split(lines[i], "\t")
		for n := range parts {
			parts[n] = Printable(parts[n])
		}
		lines[i] = strings.Join(parts, "\t")
	}
	return strings.Join(lines, "\n")
}
