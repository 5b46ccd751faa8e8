package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"syncer/internal/config"
)

// TestReload_panic: a panic while a configuration is loaded does not end the daemon.
func TestReload_panic(t *testing.T) {
	var log bytes.Buffer
	s := &system{log: zerolog.New(&log)}
	old := &config.Config{}
	if got := s.reload(old, func() (*config.Config, error) { panic("a mistake") }, nil); got != old {
		t.Errorf("in force is %+v", got)
	}
	var line struct{ Level, Error, Message, Stack string }
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("the log is no line: %v\n%s", err, log.String())
	}
	if !strings.Contains(line.Stack, "TestReload_panic") {
		t.Errorf("the stack lacks the test: %s", line.Stack)
	}
	line.Stack = ""
	want := line
	want.Level, want.Error, want.Message = "error", "panic: a mistake", "the configuration is not reloaded; the previous one stays in force"
	if diff := cmp.Diff(want, line); diff != "" {
		t.Errorf("the log (-want +got):\n%s", diff)
	}
}
