package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/config"
)

// FuzzUsersFile compares the reader of --users-file with the lines of the file.
func FuzzUsersFile(f *testing.F) {
	for _, data := range []string{
		"alice\nbob\n", "\ufeffalice\r\n\r\n bob\t\r\nalice", "", "\n\n", "\x00\xff\n\u00a0\u2028x", strings.Repeat("x", bufio.MaxScanTokenSize) + "\nalice", "\ufeff",
	} {
		f.Add([]byte(data))
	}
	path := filepath.Join(f.TempDir(), "ids.txt")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		want, tooLong := map[string]bool{}, false
		for line := range strings.SplitSeq(strings.TrimPrefix(string(data), "\ufeff"), "\n") {
			tooLong = tooLong || len(line) > bufio.MaxScanTokenSize-10
			if id := strings.TrimSpace(line); id != "" {
				want[id] = true
			}
		}
		got, err := readUsersFile(path)
		if err != nil {
			if !strings.Contains(err.Error(), path) || len(want) > 0 && !tooLong {
				t.Errorf("%d ids in %.100q: %v", len(want), data, err)
			}
			return
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got) == 0 {
			t.Errorf("%.100q is read as (-want +got):\n%.1000s", data, diff)
		}
	})
}

// FuzzInstant looks for times that --from or --to takes and that mean nothing.
func FuzzInstant(f *testing.F) {
	for _, s := range []string{
		"2026-11-01", "2026-09-06", "2011-12-30", "2026-11-01T08:00:00Z", "2026-11-01T08:00:00.5+05:45", "-7d", "-12h", "-9999w", "-0m",
		"", "-", "7d", "0000-01-01", "9999-12-31", "2026-02-29", "-99999d", "2026-11-01T24:00:00Z", " 2026-11-01", "-٣d",
	} {
		f.Add(s, "America/Santiago", int64(1794000000))
	}
	for _, zone := range []string{"UTC", "Asia/Amman", "Pacific/Apia", "Europe/Berlin", "", "Local", "../../etc/passwd", "America/Havana\x00", "Etc/GMT+12"} {
		f.Add("2024-03-31", zone, int64(0))
	}
	f.Fuzz(func(t *testing.T, s, name string, seconds int64) {
		now := time.Unix(seconds%(1<<33), 0)
		tz, err := config.Location(name)
		if err != nil {
			tz = time.UTC
		}
		i, err := parseInstant(s)
		if (err == nil) != (checkInstant(s) == nil) {
			t.Errorf("%q: %v, but as a flag %v", s, err, checkInstant(s))
		}
		if err != nil {
			if len(err.Error()) > 4*len(s)+200 {
				t.Errorf("%q makes an error of %d bytes", s, len(err.Error()))
			}
			return
		}
		checkSpan(t, s, i, now, tz)
	})
}

// checkSpan checks what an instant, parsed from s, means.
func checkSpan(t *testing.T, s string, i instant, now time.Time, tz *time.Location) {
	t.Helper()
	begin, end := i.begin(now, tz), i.end(now, tz)
	if begin.Location() != tz || end.Location() != tz {
		t.Errorf("%q is in %s and %s, want %s", s, begin.Location(), end.Location(), tz)
	}
	switch {
	case i.day != "":
		checkDay(t, s, begin, end)
	case i.unit != 0:
		if !begin.Equal(end) || begin.After(now) || begin.Before(now.AddDate(0, 0, -7*9999-1)) {
			t.Errorf("%q before %s is %s", s, now, begin)
		}
	default:
		if at, err := time.Parse(time.RFC3339, s); err != nil || !at.Equal(begin) || !begin.Equal(end) {
			t.Errorf("%q is %s, %v", s, begin, err)
		}
	}
}

// checkDay checks a day: it is as long as it is even where clocks change, and begins on that
// day or, if a zone skipped the day, at the end of the one before.
func checkDay(t *testing.T, day string, begin, end time.Time) {
	t.Helper()
	if length := end.Sub(begin); length < 0 || length > 26*time.Hour || begin.Format(time.DateOnly) < day || begin.AddDate(0, 0, -1).Format(time.DateOnly) >= day && !begin.Equal(end) {
		t.Errorf("the day %s in %s is from %s to %s", day, begin.Location(), begin, end)
	}
}
