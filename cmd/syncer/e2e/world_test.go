package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"syncer/internal/dev/pgtest"
	"syncer/internal/imsim"
)

// patience ends a test that hangs. It is many times what any needs on a slow and
// busy machine, so that no result depends on the machine's pace.
const patience = 10 * time.Minute

// world is what surrounds the program in one test: a folder with a
// configuration, a database and a simulator. When the test ends it looks for
// secrets in all that was written.
type world struct {
	t      testing.TB
	ctx    context.Context
	dir    string
	dbURL  string
	db     *pgxpool.Pool
	sim    *imsim.Server
	rounds *imsim.Rounds
	simURL string
	// program is what start runs, and onHost the network namespace in which it
	// does so; "": the test's own.
	program, onHost string

	mu     sync.Mutex
	output strings.Builder // what the processes printed
}

// worldOptions say what there is. A call rate that is not given is no limit.
type worldOptions struct {
	dir    string // for the configuration; "": a temporary one
	dbURL  string // "": a new database, without syncer's schema
	users  int    // rows of public.users: id 1…n, uid u00001…; 0: the table is empty
	change float64
	rounds *imsim.Rounds       // how users change, when more is to be said than change
	limits imsim.Tencent       // its rates
	openIM imsim.OpenIMVersion // "": the simulator's own
	host   string              // address of the simulator, which processes know as localhost; "": 127.0.0.1
	// patience ends a test that hangs; 0: patience.
	patience time.Duration
	config   string // more lines of the configuration, see configText
}

func newWorld(t testing.TB, o worldOptions) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(o.patience, patience))
	t.Cleanup(cancel)
	w := &world{t: t, program: "syncer", ctx: ctx, dir: o.dir, dbURL: o.dbURL, rounds: o.rounds}
	if w.rounds == nil {
		w.rounds = imsim.NewRounds(3, o.change)
	}
	if w.dir == "" {
		w.dir = t.TempDir()
	}
	if w.dbURL == "" {
		w.dbURL = pgtest.Database(t)
	}
	var err error
	if w.db, err = pgxpool.New(ctx, w.dbURL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	w.serve(cmp.Or(o.host, "127.0.0.1"), o.limits, o.openIM)
	w.exec(`CREATE TABLE public.users (id bigint PRIMARY KEY, uid text)`)
	w.exec(`INSERT INTO public.users SELECT n, 'u' || lpad(n::text, 5, '0') FROM generate_series(1, $1::int) AS n`, o.users)
	w.write("database_url", w.dbURL)
	w.write("config.toml", fmt.Sprintf(configText, w.simURL, tencentKey, openIMSecret)+o.config)
	t.Cleanup(w.lookForSecrets)
	return w
}

// configText has places for the simulator's address, the key and the secret.
// Everything is small, so that little data goes through all of it.
const configText = `[database]
url_file = "database_url"
[log]
level = "debug"
[http]
listen = "127.0.0.1:0"
[users]
table   = "public.users"
user_id = "uid"
[[apps]]
name     = "main"
provider = "tencent"
[apps.tencent]
sdk_app_id = 1400000001
base_url   = "%[1]s"
secret_key = "%[2]s"
[[apps]]
name     = "chat"
provider = "openim"
[apps.openim]
base_url = "%[1]s"
secret   = "%[3]s"
[sweep]
range_users  = 1000
page_users   = 500
rescue_after = "5s"
`

// serve starts a simulator, which is the world's from then on.
func (w *world) serve(host string, tc imsim.Tencent, version imsim.OpenIMVersion) {
	w.t.Helper()
	tc.SDKAppID, tc.Admins, tc.SecretKey = 1400000001, []string{"administrator"}, tencentKey
	oc := imsim.OpenIM{AdminUserID: "imAdmin", Secret: openIMSecret, Version: version, PresenceRate: tc.PresenceRate, AccountsRate: tc.AccountsRate}
	for _, limit := range []*int{&tc.PresenceRate, &tc.AccountsRate} {
		if *limit == 0 {
			*limit = -1
		}
	}
	sim, err := imsim.Start(imsim.Config{Tencent: &tc, OpenIM: &oc, Population: w.rounds, Record: true}, host)
	if err != nil {
		w.t.Fatal(err)
	}
	w.sim, w.simURL = sim.Server, sim.URL
	if host != "127.0.0.1" { // signatures go without TLS to this machine alone
		w.simURL = "http://localhost" + sim.URL[strings.LastIndexByte(sim.URL, ':'):]
	}
	w.t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			w.t.Error(err)
		}
	})
}

// write writes a file that only its owner may read.
func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.db.Exec(w.ctx, sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// seed runs the statements of a file of testdata.
func (w *world) seed(name string) {
	w.t.Helper()
	statements, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		w.t.Fatal(err)
	}
	err = w.db.AcquireFunc(w.ctx, func(conn *pgxpool.Conn) error {
		_, err := conn.Conn().PgConn().Exec(w.ctx, string(statements)).ReadAll()
		return err
	})
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
}

// query reads rows of one column of text, or of as many as T has fields.
func query[T any](w *world, scan pgx.RowToFunc[T], sql string, args ...any) []T {
	w.t.Helper()
	rows, err := w.db.Query(w.ctx, sql, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	all, err := pgx.CollectRows(rows, scan)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return all
}

// text reads one value as text; "" when there is no row.
func (w *world) text(sql string, args ...any) string {
	w.t.Helper()
	for _, v := range query(w, pgx.RowTo[any], sql, args...) {
		return fmt.Sprint(v)
	}
	return ""
}

// wantSQL checks one value.
func (w *world) wantSQL(want, sql string, args ...any) {
	w.t.Helper()
	if got := w.text(sql, args...); got != want {
		w.t.Errorf("%s\nreturns %s, want %s", sql, got, want)
	}
}

// eventually polls until ok reports true.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.t.Fatalf("waited in vain until %s\n%s", what, w.tail())
		}
	}
}

// waitSQL polls until the statement returns the value.
func (w *world) waitSQL(want, sql string, args ...any) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s returns %s", sql, want), func() bool { return w.text(sql, args...) == want })
}

// printed keeps what a process printed.
func (w *world) printed(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.output.WriteString(text)
}

// tail is the end of what the processes that have ended printed, without debug
// lines, for a test that fails.
func (w *world) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var kept []string
	for line := range strings.Lines(w.output.String()) {
		if !strings.Contains(line, `"level":"debug"`) && !strings.Contains(line, " DBG ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-30):], "")
}
