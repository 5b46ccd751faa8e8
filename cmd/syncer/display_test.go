package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/jobs"
	"syncer/repo"
)

// TestDisplay_suspect: while pages are suspect, the progress says so.
func TestDisplay_suspect(t *testing.T) {
	var printed strings.Builder
	d := newDisplay(&messages{w: &printed})
	s := &sweep{app: &jobs.App{App: repo.App{Name: "chat"}}, kind: "presence"}
	for _, suspect := range []bool{true, false} {
		past := time.Now().Add(-time.Hour)
		d.shown[s] = &shown{meter: newMeter(repo.Run{}, past), lastLine: past, total: 500}
		d.progress(s, repo.Run{Counters: repo.Counters{Users: 500}, Suspect: suspect})
	}
	want := "chat presence (suspect pages are rechecked): 500 of 500 users (100%), 0 users/s\nchat presence: 500 of 500 users (100%), 0 users/s\n"
	if diff := cmp.Diff(want, printed.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}
