package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompletion completes words in a real bash.
func TestCompletion(t *testing.T) {
	script := filepath.Join(t.TempDir(), "syncer.bash")
	var printed strings.Builder
	if code := run([]string{"syncer", "completion", "bash"}, &printed, &printed, nil); code != exitDone {
		t.Fatalf("it ends with %d: %s", code, printed.String())
	}
	if err := os.WriteFile(script, []byte(printed.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ line, want string }{
		{"syncer ba", "backfill"},
		{"syncer report a", "active-users accounts all"},
		{"syncer report", "report"},
		{"syncer help grant-", "grant-reader grant-worker"},
		{"syncer backfill --re", "--resume"},
		{"syncer backfill -", "--config -c --app --job --resume --users-file --let-leave --trust-clock --json --help"},
		{"syncer backfill --job ", "presence accounts"},
		{"syncer backfill --job = p", "presence"}, // --job=p, as bash splits it
		{"syncer backfill --app main --job a", "accounts"},
		{"syncer report all --format ", "table json html"},
		{"syncer report runs --format ", "table csv json html"},
		{"syncer runs --job show --st", "--status"}, // show is a value, not the command
		{"syncer runs show --st", ""},
		{"syncer backfill --app ", ""},
		{"syncer migrate --config backfill.toml up --co", "--config"},
		{"syncer backfill --users-file ", ""}, // readline completes the names of files
	} {
		words := strings.Split(test.line, " ")
		command := exec.Command("bash", "--norc", "-c", `compopt() { :; }; source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _syncer; echo "${COMPREPLY[*]}"`)
		command.Args = append(append(command.Args, script), words...)
		got, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, got)
		}
		if strings.TrimSpace(string(got)) != test.want {
			t.Errorf("%q completes to %q, want %q", test.line, strings.TrimSpace(string(got)), test.want)
		}
	}
}

// TestCompletion_all checks that all completions and the manual page have every command and
// option.
func TestCompletion_all(t *testing.T) {
	p := &program{stdout: &strings.Builder{}, stderr: &messages{w: &strings.Builder{}}}
	all := commandsOf(p.command())
	texts := map[string]string{"man": strings.ReplaceAll(manual(all), `\-`, "-")}
	for _, shell := range shells {
		texts[shell.name] = shell.script(all)
	}
	for name, text := range texts {
		for _, l := range all {
			if !strings.Contains(text, l.path) && l.path != "syncer help" {
				t.Errorf("%s lacks %s", name, l.path)
			}
			for _, o := range l.options {
				want := o.names[0]
				if name == "fish" {
					want = "-l " + strings.TrimLeft(want, "-")
				}
				if !strings.Contains(text, want) {
					t.Errorf("%s lacks %s of %s", name, want, l.path)
				}
			}
		}
	}
}
