package jobs

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/internal/imsim"
	"syncer/migrations"
	"syncer/repo"
)

// world is one test's database, simulator and log. When the test ends, it looks
// for secrets in all that was written.
type world struct {
	t      *testing.T
	ctx    context.Context // ends before the test's time is up
	url    string
	db     *pgxpool.Pool
	sim    *imsim.Server
	rounds *imsim.Rounds
	base   string // the simulator's address
	log    *logBuffer
}

// worldOptions say what there is.
type worldOptions struct {
	users   int     // rows of public.users: id 1…n, uid u000001…
	change  float64 // share of the users that changes from round to round
	unknown float64 // share of the users not imported in round 0
	tencent imsim.Tencent
	openIM  imsim.OpenIM
}

// patience ends a test that hangs, and grace the work of an engine that stops.
// Both are many times what any test needs on a slow and busy machine.
const (
	patience = 10 * time.Minute
	grace    = 2 * time.Minute
)

func setup(t *testing.T, o worldOptions) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, log: &logBuffer{}, rounds: imsim.NewRounds(7, o.change)}
	w.url = pgtest.Template(t, "jobs", migrate)
	var err error
	if w.db, err = pgxpool.New(ctx, w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	w.rounds.UnknownShare = o.unknown
	w.serve(o)
	w.exec(`CREATE TABLE public.users (id bigint PRIMARY KEY, uid text, team int)`)
	w.addUsers(1, o.users)
	t.Cleanup(w.lookForSecrets)
	return w
}

func migrate(url string) error {
	ctx := context.Background()
	m, err := migrations.Open(ctx, migrations.Config{URL: url, Schema: "syncer"})
	if err != nil {
		return err
	}
	defer m.Close()
	_, err = m.Up(ctx)
	return err
}

// serve starts the simulator. A limit that is not given is none.
func (w *world) serve(o worldOptions) {
	w.t.Helper()
	tc, oc := o.tencent, o.openIM
	tc.SDKAppID, tc.Admins, tc.SecretKey = 1400000001, []string{"administrator"}, simKey
	for _, limit := range []*int{&tc.PresenceRate, &tc.AccountsRate} {
		if *limit == 0 {
			*limit = -1
		}
	}
	oc.AdminUserID, oc.Secret = "imAdmin", simSecret
	sim, err := imsim.Start(imsim.Config{Tencent: &tc, OpenIM: &oc, Population: w.rounds, Record: true}, "127.0.0.1")
	if err != nil {
		w.t.Fatal(err)
	}
	w.sim, w.base = sim.Server, sim.URL
	w.t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			w.t.Error(err)
		}
	})
}

func userID(n int) string { return fmt.Sprintf("u%06d", n) }

// addUsers adds users from number first to last, in teams of a hundred.
func (w *world) addUsers(first, last int) {
	w.t.Helper()
	w.exec(`INSERT INTO public.users SELECT n, 'u' || lpad(n::text, 6, '0'), n / 100 FROM generate_series($1::int, $2::int) AS n`, first, last)
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.db.Exec(w.ctx, sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// query reads rows of one column, or of as many as the struct T has fields.
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

// count reads one number.
func (w *world) count(sql string, args ...any) int64 {
	w.t.Helper()
	return query(w, pgx.RowTo[int64], sql, args...)[0]
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
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// fault makes the simulator misbehave, until the test ends or clears it.
func (w *world) fault(f imsim.Fault) (id int) {
	w.t.Helper()
	id, err := w.sim.AddFault(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// hits is how many calls a fault has hit so far.
func (w *world) hits(id int) int {
	for _, f := range w.sim.Faults() {
		if f.ID == id {
			return f.Hits
		}
	}
	return 0
}

// calls is how many calls the API side has seen, logins left out.
func (w *world) calls() int64 {
	var n int
	for path, api := range w.sim.Stats().APIs {
		if !strings.HasPrefix(path, "/auth/") {
			n += api.Calls
		}
	}
	return int64(n)
}

// start starts a backfill.
func (w *world) start(e *testEngine, provider imclient.Provider, kind imclient.Kind) repo.Run {
	w.t.Helper()
	run, err := e.StartBackfill(w.ctx, Backfill{AppID: e.app(provider).ID, Kind: kind, Waiting: func(repo.Run) {}})
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

// wait waits until a run is closed.
func (w *world) wait(e *testEngine, run repo.Run) repo.Run {
	w.t.Helper()
	run, err := e.WaitRun(w.ctx, run, func(repo.Run) {})
	if err != nil {
		w.t.Fatalf("run %d: %v\n%s", run.ID, err, w.log.tail())
	}
	return run
}

// backfill runs one to its end.
func (w *world) backfill(e *testEngine, provider imclient.Provider, kind imclient.Kind) repo.Run {
	w.t.Helper()
	return w.wait(e, w.start(e, provider, kind))
}

// ended checks how a run ended.
func (w *world) ended(run repo.Run, want repo.RunStatus) {
	w.t.Helper()
	if run.Status != want {
		w.t.Fatalf("run %d ended as %s (%s), want %s\n%s", run.ID, run.Status, run.Error, want, w.log.tail())
	}
}
