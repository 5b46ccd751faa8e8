package e2e

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script/*.txtar, each in a world of its own: an empty
// users table, a database without syncer's schema, config.toml in the folder.
// Besides testscript's own commands they have:
//
//	exits CODE PROGRAM ARG...   runs to the end, and checks the exit code
//	sql STATEMENT               prints the rows, with tabs between columns
//	seed FILE                   runs the statements of a file of testdata
//	wait-sql STATEMENT WANT     polls until the first value is that
//	sim METHOD PATH [BODY]      calls the simulator
//	mask stdout|stderr          prints that again, with what varies masked
//
// go test -update writes what was printed into the scripts, where a cmp differs.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			w := newWorld(env.T().(testing.TB), worldOptions{dir: env.WorkDir})
			env.Values["world"] = w
			env.Vars = append(env.Vars, goRace)
			env.Setenv("DATABASE_URL", w.dbURL)
			env.Setenv("SIM", w.simURL)
			env.Setenv("SIM_BY_NAME", strings.Replace(w.simURL, "127.0.0.1", "localhost", 1))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":    scriptExits,
			"sql":      scriptSQL,
			"seed":     scriptSeed,
			"wait-sql": scriptWaitSQL,
			"sim":      scriptSim,
			"mask":     scriptMask,
		},
	})
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value("world").(*world) }

// usage ends a script whose command is used wrongly.
func usage(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "exits CODE PROGRAM ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	worldOf(ts).printed(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
	if got := exitCode(err); got != want {
		ts.Fatalf("ended with %d, want %d", got, want)
	}
}

func scriptSQL(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "sql STATEMENT")
	w := worldOf(ts)
	rows, err := w.db.Query(w.ctx, args[0])
	ts.Check(err)
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		texts := make([]string, len(values))
		for i, v := range values {
			texts[i] = fmt.Sprint(v)
		}
		return strings.Join(texts, "\t") + "\n", err
	})
	ts.Check(err)
	_, err = io.WriteString(ts.Stdout(), strings.Join(lines, ""))
	ts.Check(err)
}

func scriptSeed(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "seed FILE")
	worldOf(ts).seed(args[0])
}

func scriptWaitSQL(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "wait-sql STATEMENT WANT")
	worldOf(ts).waitSQL(args[1], args[0])
}

func scriptSim(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && (len(args) == 2 || len(args) == 3), "sim METHOD PATH [BODY]")
	w := worldOf(ts)
	body := strings.NewReader(strings.Join(args[2:], ""))
	request, err := http.NewRequestWithContext(w.ctx, args[0], w.simURL+args[1], body)
	ts.Check(err)
	response, err := http.DefaultClient.Do(request)
	ts.Check(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	ts.Check(err)
	if response.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", response.Status, text)
	}
	_, err = ts.Stdout().Write(text)
	ts.Check(err)
}

// varying is what differs from run to run, in order of precedence.
var varying = []struct {
	pattern *regexp.Regexp
	mask    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC`), "TIME"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d UTC`), "TIME"},
	{regexp.MustCompile(`postgres://[^ ,]+`), "DATABASE"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile("user=[^ ]+ database=[^`]+`"), "user=USER database=NAME`"},
	{regexp.MustCompile(`("(?:seconds|users_per_second|quota_used)": )[0-9.e-]+`), "${1}VARIES"},
	{regexp.MustCompile(`("run_id": )\d+`), "${1}VARIES"},
	{regexp.MustCompile(`(?m)^( \w+ +(?:presence|accounts)) +\d+`), "$1  RUN"},
	// The end of a row of the summary: duration, users/s, quota used.
	{regexp.MustCompile(`(?m) +[0-9.]+(?:ms|m?s|µs) +[0-9,]+ +\d+ %`), "  DURATION  RATE  SHARE"},
	{regexp.MustCompile(`(?m)(retries) +duration +users/s +quota used`), "$1  duration  users/s  quota used"},
	{regexp.MustCompile(`─{20,}`), "────"},
	{regexp.MustCompile(`(?m) +$`), ""},
}

func scriptMask(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "mask stdout|stderr")
	text := ts.ReadFile(args[0])
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.mask)
	}
	_, err := io.WriteString(ts.Stdout(), text)
	ts.Check(err)
}
