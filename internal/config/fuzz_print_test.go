package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzPrint looks for configurations that are printed as something that is no
// TOML, or loads as another one. Two settings are text of any kind.
func FuzzPrint(f *testing.F) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		f.Fatal(err)
	}
	secrets := regexp.MustCompile(`(?m)^(secret(_key)?)_file = .*`)
	f.Add(secrets.ReplaceAllString(string(example), `$1 = "x"`), "true", "users")
	f.Add(minimal, "name <> 'a\u0007\v\x7f\u200b\U000e0001\"\\'", `"A.""b".c`)
	f.Add(minimal, "\xff", "\xfe")
	f.Add(minimal+"[[jobs]]\nname = \"x\"\nkind = \"presence\"\nschedule = \"CRON_TZ=Asia/Tokyo 0 0 29 2 *\"\n[sweep]\nmax_gap = \"1w\"\ncollapse_ratio = 1e-3\n", "", "ünïcode")
	f.Add(strings.Replace(minimal, `region = "singapore"`, `base_url = "https://x.example/a b/"`, 1)+"[report]\ntimezone = \"Etc/GMT-14\"\n", "1=1 # no remark", "users")
	dir := f.TempDir()
	path, printed := filepath.Join(dir, "config.toml"), filepath.Join(dir, "printed.toml")
	f.Fuzz(func(t *testing.T, text, where, table string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		environ := []string{"SYNCER_USERS_WHERE=" + where, "SYNCER_USERS_TABLE=" + table}
		want, err := Load(path, environ)
		reporting, reportingErr := LoadReporting(path, environ)
		if err == nil && (reportingErr != nil || reporting.Database != want.Database || len(reporting.Apps) != len(want.Apps)) {
			t.Errorf("for reports it is %+v, %v", reporting, reportingErr)
		}
		if err != nil || len(want.Jobs) == 0 { // that there are none cannot be printed
			return
		}
		var b strings.Builder
		if err := Print(&b, path, environ); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(printed, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Load(printed, nil)
		if err != nil {
			t.Fatalf("what is printed does not load: %v\n%s", err, b.String())
		}
		if diff := cmp.Diff(want, got,
			cmpopts.IgnoreTypes(Secret(""), DatabaseURL("")), cmpopts.IgnoreFields(Config{}, "Warnings"),
			cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() }),
		); diff != "" {
			t.Errorf("what is printed loads as (-loaded +printed):\n%s", diff)
		}
	})
}

// FuzzLine puts a mistake into any line of the example and looks for an error that
// names another line or another key.
func FuzzLine(f *testing.F) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		f.Fatal(err)
	}
	lines := strings.Split(string(example), "\n")
	for n := 0; n < len(lines); n += 4 {
		f.Add(uint16(n), "x", "1")
	}
	f.Add(uint16(0), "äöü \"\\\u2028", `[[{}]]`)
	setting := regexp.MustCompile(`^([a-z_]+) = `)
	header := regexp.MustCompile(`^\[+([a-z.]+)\]+$`)
	f.Fuzz(func(t *testing.T, n uint16, word, value string) {
		at := int(n) % len(lines)
		if m := setting.FindStringSubmatch(lines[at]); m != nil && !strings.HasSuffix(m[1], "_file") { // which the environment replaces here
			// A value of a kind that no setting is.
			wrong := slices.Clone(lines)
			wrong[at] = m[1] + " = [ 1979-05-27 ]"
			checkNamed(t, wrong, at, "."+m[1])
		}
		if header.MatchString(lines[at]) || strings.Contains(strings.Join(lines[:at], "\n"), "[") {
			// A key that there is none of. Nothing begins with these letters.
			more := slices.Insert(slices.Clone(lines), at+1, tomlString("zqx"+word)+" = true # "+strings.Map(printable, value))
			if strings.IndexFunc(word, func(r rune) bool { return r == '\ufffd' }) < 0 {
				checkNamed(t, more, at+1, ".zqx"+word)
			}
		}
	})
}

// printable leaves the letters that a remark may have.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r == '\ufffd' {
		return -1
	}
	return r
}

// checkNamed loads lines of which one is wrong.
func checkNamed(t *testing.T, lines []string, at int, key string) {
	t.Helper()
	_, _, err := bind("config.toml", []byte(strings.Join(lines, "\n")), []string{"SYNCER_APPS_MAIN_TENCENT_SECRET_KEY=x", "SYNCER_APPS_CHAT_OPENIM_SECRET=x"})
	problems, ok := errors.AsType[Problems](err)
	if !ok {
		t.Fatalf("line %d, %q, gives %v", at+1, lines[at], err)
	}
	named := false
	for _, p := range problems {
		named = named || p.Line == at+1 && strings.HasSuffix(p.Key, key) && strings.HasPrefix(p.String(), fmt.Sprintf("config.toml:%d: ", at+1))
		if p.Line != 0 && p.Line < at+1 {
			t.Errorf("line %d, %q, is wrong, and %s", at+1, lines[at], p)
		}
	}
	if !named {
		t.Errorf("line %d, %q, is wrong, but that is not said: %v", at+1, lines[at], err)
	}
}
