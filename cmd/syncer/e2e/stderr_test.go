package e2e

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
)

// TestStderr_oneFormat checks that every line that a command prints to stderr is a JSON
// object, or none is: log, warnings of the configuration, progress, notices and the error
// that ends it. Each command is run with its own default, and with the other format.
func TestStderr_oneFormat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 20, config: noJobs})
	w.write("ids.txt", "u00001\nu00002\n")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := "SYNCER_HTTP_LISTEN=" + l.Addr().String()
	const (
		daemon = "json"
		once   = "console"
		warned = "SYNCER_APPS_MAIN_TENCENT_PRESENCE_RATE=201" // above the documented limit
	)
	for _, command := range []struct {
		format string // auto
		code   int
		args   []string
		says   []string
	}{
		{daemon, exitFailed, []string{warned, "run"}, []string{"presence_rate", "run: syncer migrate up"}},
		{once, exitFailed, []string{warned, "backfill"}, []string{"presence_rate", "run: syncer migrate up"}},
		{once, exitDone, []string{"migrate", "up"}, nil},
		{daemon, exitUsage, []string{"web"}, []string{"[web] listen is not set"}},
		{daemon, exitFailed, []string{taken, "run"}, []string{"check [http] listen"}},
		{once, exitDone, []string{"backfill", "--users-file", "ids.txt"}, []string{"page written", "chat accounts: succeeded, 2 users"}},
		{once, exitFailed, []string{"SYNCER_APPS_MAIN_TENCENT_SECRET_KEY=wrong", "backfill"}, []string{"run closed", "chat accounts: succeeded, 20 users", "not done: main presence, main accounts"}},
		{once, exitDone, []string{"report", "runs", "-o", "report.txt"}, []string{"wrote report.txt"}},
		{once, exitPartial, []string{"explain", "nobody"}, []string{"does not poll this user"}},
		{once, exitUsage, []string{"runs", "--app", "nix"}, []string{"--app nix: no such app"}},
	} {
		for _, format := range []string{"auto", map[string]string{daemon: once, once: daemon}[command.format]} {
			_, stderr := w.run(command.code, append([]string{"SYNCER_LOG_FORMAT=" + format}, command.args...)...)
			wantText(t, stderr, command.says...)
			if format == "auto" {
				format = command.format
			}
			for line := range strings.Lines(stderr) {
				var object struct{ Level, Time, Message string }
				isJSON := json.Unmarshal([]byte(line), &object) == nil
				if isJSON != (format == daemon) || isJSON && (object.Level == "" || object.Time == "" || object.Message == "") {
					t.Errorf("%v with format %s prints: %s", command.args, format, line)
				}
			}
		}
	}

	// Before the configuration is read, every command prints text.
	_, stderr := w.run(exitUsage, "SYNCER_LOG_FORMAT=xml", "run")
	wantText(t, stderr, "syncer: the configuration has a problem:\n")
}
