package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestHang(t *testing.T) {
	const option = "   --from TIME  begin at TIME: a day, an instant, or a time before now"
	for width, want := range map[int][]string{
		200: {option},
		40:  {"   --from TIME  begin at TIME: a day, an", "                instant, or a time", "                before now"},
	} {
		if diff := cmp.Diff(want, strings.Split(hang(option, width), "\n")); diff != "" {
			t.Errorf("at %d columns (-want +got):\n%s", width, diff)
		}
	}
	if diff := cmp.Diff("   one two\n   three", hang("   one two three", 12)); diff != "" {
		t.Errorf("a paragraph (-want +got):\n%s", diff)
	}
}

// TestHelp_fits holds that help fits 80 columns, of every command.
func TestHelp_fits(t *testing.T) {
	for _, command := range []string{"", "run", "backfill", "migrate", "migrate down", "config", "config check", "config print", "runs", "runs show", "explain",
		"report", "report all", "report sessions", "grant-reader", "grant-worker", "simulate", "version"} {
		var stdout, stderr strings.Builder
		if code := run(append(append([]string{"syncer"}, strings.Fields(command)...), "--help"), &stdout, &stderr, nil); code != exitDone {
			t.Errorf("%s --help ends with %d: %s", command, code, stderr.String())
		}
		for line := range strings.Lines(stdout.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%s --help has a line of %d columns: %s", command, n, line)
			}
		}
	}
}
