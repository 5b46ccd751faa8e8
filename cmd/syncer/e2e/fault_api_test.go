package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/internal/imsim"
)

// faulty is one way for an API to go wrong, and a backend of its own that does:
// two apps, one of each provider. All of a world are swept by one process at once,
// since most of the time goes into waiting.
type faulty struct {
	name  string
	fault imsim.Fault // of each API, but for logins; a path that ends in * leaves it at one provider's
	more  []imsim.Fault
	// baseURL is where the apps look for the backend; "": at the simulator's address.
	baseURL string
	// timeout of calls of OpenIM, and of Tencent, where it is at least 4s.
	timeouts [2]string
	rate     int    // calls of an API in a second; 0: faultRate
	config   string // more lines of the configuration of either app

	// What comes of it; which of these are looked at says the test.
	free    bool     // no call has to be repeated
	renewed bool     // calls are repeated by the client, not by the batch's retries
	says    []string // is in the error of each run, or in that of Tencent's and in OpenIM's
	failed  []string // users' failures, as failures has them

	world        *faultWorld
	no           int
	sim          *imsim.Server
	simURL       string
	calls, first int // before the fault: calls seen, newest run
}

// faultWorld is a world of several backends that go wrong, and one that does not:
// the apps main and chat. All users are imported; a tenth of them changes from
// one round to the next.
type faultWorld struct {
	*world
	users  int
	page   int // users of a page
	faulty []*faulty
}

// apiPaths are the APIs that sweeps ask.
var apiPaths = []string{imsim.PathQueryOnlineStatus, imsim.PathTencentAccounts, imsim.PathOpenIMPresence, imsim.PathOpenIMAccounts}

// faultLimit is what a simulator allows of each API in a second; the room between
// it and faultRate is for calls that are held up on their way.
const (
	faultLimit = 120
	faultRate  = 90
)

// faultApps is the configuration of the apps of one backend.
const faultApps = `
[[apps]]
name     = "t%[1]d"
provider = "tencent"
[apps.tencent]
sdk_app_id    = 1400000001
base_url      = %[2]q
secret_key    = "%[3]s"
timeout       = "%[5]s"
presence_rate = %[7]d
accounts_rate = %[7]d
%[8]s
[[apps]]
name     = "o%[1]d"
provider = "openim"
[apps.openim]
base_url      = %[2]q
secret        = "%[4]s"
timeout       = "%[6]s"
presence_rate = %[7]d
accounts_rate = %[7]d
%[8]s
`

// newFaultWorld makes one whose first sweep is done and went well.
func newFaultWorld(t *testing.T, users, page int, all ...*faulty) *faultWorld {
	t.Helper()
	w := &faultWorld{users: users, page: page, world: newWorld(t, worldOptions{
		users: users, rounds: &imsim.Rounds{Seed: 3, PresenceShare: 0.1}, config: noJobs,
	})}
	healthy, healthyURL := w.sim, w.simURL
	for i, f := range all {
		f.world, f.no = w, i
		if f.rate == 0 {
			f.rate = faultRate
		}
		w.serve("127.0.0.1", imsim.Tencent{PresenceRate: faultLimit, AccountsRate: faultLimit}, "")
		f.sim = w.sim
		f.simURL = w.simURL
		if f.baseURL == "" {
			f.baseURL = f.simURL
		}
		if f.timeouts[0] == "" {
			f.timeouts = [2]string{"20s", "20s"} // none is met on a busy machine
		}
		w.addConfig(fmt.Sprintf(faultApps, i, f.baseURL, tencentKey, openIMSecret, f.timeouts[1], f.timeouts[0], f.rate, f.config))
	}
	w.sim, w.simURL, w.faulty = healthy, healthyURL, all
	w.run(exitDone, "migrate", "up")
	return w
}

// oneAttempt lets the queue grant a range one attempt instead of six in five
// minutes, so that it is seen what happens after the last.
func (w *faultWorld) oneAttempt() {
	w.t.Helper()
	w.exec(`CREATE FUNCTION public.one_attempt() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.max_attempts := 1; RETURN NEW; END'`)
	w.exec(`CREATE TRIGGER one_attempt BEFORE INSERT ON syncer.river_job FOR EACH ROW EXECUTE FUNCTION public.one_attempt()`)
}

// backfill sweeps all users of all apps.
func (w *faultWorld) backfill(code int) (stderr string) {
	w.t.Helper()
	_, stderr = w.begun().wait(code)
	return stderr
}

// begun is a backfill that has begun.
func (w *faultWorld) begun(args ...string) *process {
	w.t.Helper()
	return w.start(append([]string{fmt.Sprintf("SYNCER_SWEEP_PAGE_USERS=%d", w.page), "SYNCER_SWEEP_RESCUE_AFTER=60s", "SYNCER_LOG_FORMAT=json", "backfill"}, args...)...)
}

// change lets users change and come, so that there is something to write.
func (w *faultWorld) change() {
	w.rounds.SetRound(w.rounds.Round() + 1)
	w.exec(`INSERT INTO public.users SELECT n, 'u' || lpad(n::text, 5, '0') FROM generate_series($1::int + 1, $1::int + 20) AS n`, w.users)
	w.users += 20
}

// begin lets the backends go wrong.
func (w *faultWorld) begin() {
	w.t.Helper()
	newest := query(w.world, pgx.RowTo[int], `SELECT coalesce(max(run_id), 0)::int FROM syncer.sync_run`)[0]
	for _, f := range w.faulty {
		f.calls, f.first = f.made(), newest
		for _, fault := range append([]imsim.Fault{f.fault}, f.more...) {
			f.add(fault)
		}
	}
}

// add adds a fault to each API that it is about.
func (f *faulty) add(fault imsim.Fault) {
	f.world.t.Helper()
	if fault.Kind == "" {
		return
	}
	prefix, wild := strings.CutSuffix(fault.Path, "*")
	paths := apiPaths
	if fault.Path == imsim.PathAdminToken {
		paths = []string{fault.Path}
	}
	for _, path := range paths {
		if wild && !strings.HasPrefix(path, prefix) || !wild && fault.Path != "" && fault.Path != path {
			continue
		}
		one := fault
		one.Path = path
		if _, err := f.sim.AddFault(one); err != nil {
			f.world.t.Fatal(err)
		}
	}
}

// end ends all faults.
func (w *faultWorld) end() {
	for _, f := range w.faulty {
		f.sim.ClearFaults()
	}
}

// each looks at each fault in a test of its own; when is added to its name.
func (w *faultWorld) each(when string, look func(f *faulty)) {
	outer := w.t.(*testing.T)
	defer func() { w.t = outer }()
	for _, f := range w.faulty {
		outer.Run(f.name+when, func(t *testing.T) {
			w.t = t
			look(f)
		})
	}
}

// made is how many calls the sweeps' APIs have seen.
func (f *faulty) made() (n int) {
	stats := f.sim.Stats().APIs
	for _, path := range apiPaths {
		n += stats[path].Calls
	}
	return n
}

// hits is how many calls were hit by the faults that are in force.
func (f *faulty) hits() (n int) {
	for _, state := range f.sim.Faults() {
		n += state.Hits
	}
	return n
}

// healthy is how many calls it takes to sweep all users when none fails.
func (w *faultWorld) healthy() int {
	batches := func(size int) int { return (w.users + size - 1) / size }
	return 3*batches(w.page) + batches(min(w.page, 100))
}

// runs are those of the apps since the fault began, and how they ended.
func (f *faulty) runs() []string {
	const runsSQL = `
SELECT provider || ' ' || kind || ' ' || status
FROM syncer.sync_run
JOIN syncer.app USING (app_id)
WHERE name IN ($1, $2) AND run_id > $3
ORDER BY provider DESC, kind DESC, run_id`
	f.world.t.Helper()
	return query(f.world.world, pgx.RowTo[string], runsSQL, f.tencent(), f.openIM(), f.first)
}

func (f *faulty) tencent() string { return fmt.Sprintf("t%d", f.no) }
func (f *faulty) openIM() string  { return fmt.Sprintf("o%d", f.no) }

// ended checks how the runs ended: of Tencent's presence and accounts, and of
// OpenIM's; all in the same way where one is given.
func (f *faulty) ended(want ...string) {
	f.world.t.Helper()
	for len(want) < len(apiPaths) {
		want = append(want, want[0])
	}
	want = slices.Clone(want)
	for i, run := range []string{"tencent presence ", "tencent accounts ", "openim presence ", "openim accounts "} {
		want[i] = run + want[i]
	}
	if diff := cmp.Diff(want, f.runs()); diff != "" {
		f.world.t.Errorf("the runs (-want +got):\n%s", diff)
	}
}

// errors returns the errors of the runs since the fault began, of one app.
func (f *faulty) errors(app string) []string {
	f.world.t.Helper()
	return query(f.world.world, pgx.RowTo[string], `
SELECT coalesce(error, '') FROM syncer.sync_run JOIN syncer.app USING (app_id) WHERE name = $1 AND run_id > $2`, app, f.first)
}

// explained checks that the runs say why they failed.
func (f *faulty) explained() {
	f.world.t.Helper()
	for i, app := range []string{f.tencent(), f.openIM()} {
		want := f.says[min(i, len(f.says)-1)]
		for _, got := range f.errors(app) {
			if !strings.Contains(got, want) {
				f.world.t.Errorf("a run of %s failed for %q, want %q in it", app, got, want)
			}
		}
	}
}

// failures checks whose answers failed, as lines "provider kind code: how many,
// first to last".
func (f *faulty) failures(want ...string) {
	f.world.t.Helper()
	const failuresSQL = `
SELECT format('%s %s %s: %s, %s to %s', provider, kind, code, count(*), min(user_id), max(user_id))
FROM syncer.user_failure
JOIN syncer.app USING (app_id)
WHERE name IN ($1, $2)
GROUP BY provider, kind, code
ORDER BY provider DESC, kind DESC, code`
	got := query(f.world.world, pgx.RowTo[string], failuresSQL, f.tencent(), f.openIM())
	if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
		f.world.t.Errorf("failures of users (-want +got):\n%s", diff)
	}
}

// stored is what of the apps is stored, and where.
func (f *faulty) stored() []stored {
	all := slices.Clone(allStored)
	for i := range all {
		all[i].app = map[string]string{"main": f.tencent(), "chat": f.openIM()}[all[i].app]
	}
	return all
}

// nothingInvented checks that what was written was served, where not all that
// was served was written.
func (f *faulty) nothingInvented() {
	w := f.world
	w.t.Helper()
	type row struct{ UserID, Value string }
	for _, s := range f.stored() {
		rowsSQL := fmt.Sprintf(`SELECT user_id, %s FROM syncer.%s JOIN syncer.app USING (app_id) WHERE name = $1`, s.value, s.history)
		for _, r := range query(w.world, pgx.RowToStructByPos[row], rowsSQL, s.app) {
			served := f.sim.Served(s.served, r.UserID)
			if !slices.ContainsFunc(served, func(v imsim.Value) bool { return w.spelled(v) == r.Value }) {
				w.t.Errorf("%s of %s: %s is %s, which was never served; %v was", s.history, s.app, r.UserID, r.Value, served)
			}
		}
	}
}

// noFlood checks that no API saw more calls in a second than it allows, and that
// the runs count the calls that there were.
func (f *faulty) noFlood() {
	f.world.t.Helper()
	stats := f.sim.Stats()
	for path, got := range stats.APIs {
		if got.MaxPerSecond > faultLimit || got.RateLimited > 0 || got.DuplicateCalls > 0 || got.RepeatedNonces > 0 {
			f.world.t.Errorf("%s: %d calls in one second, %d refused for the rate, %d with an id twice, %d with a repeated random or operationID",
				path, got.MaxPerSecond, got.RateLimited, got.DuplicateCalls, got.RepeatedNonces)
		}
	}
	made := f.made() + stats.APIs[imsim.PathOpenIMUsersStatus].Calls
	const callsSQL = `SELECT sum(calls)::int FROM syncer.sync_run JOIN syncer.app USING (app_id) WHERE name IN ($1, $2)`
	if counted := query(f.world.world, pgx.RowTo[int], callsSQL, f.tencent(), f.openIM())[0]; counted < made {
		f.world.t.Errorf("the runs count %d calls, there were %d", counted, made)
	}
}

// asServed checks that all users have what was served, and no user fails.
func (f *faulty) asServed() {
	f.world.t.Helper()
	f.failures()
	f.world.storedAsServed(f.sim, f.stored())
	f.world.wantSQL(fmt.Sprint(4*f.world.users), `
SELECT (SELECT count(*) FROM syncer.presence_snapshot JOIN syncer.app USING (app_id) WHERE name IN ($1, $2)) +
       (SELECT count(*) FROM syncer.account_snapshot JOIN syncer.app USING (app_id) WHERE name IN ($1, $2))`, f.tencent(), f.openIM())
	f.noFlood()
}

// spared checks that the apps whose backend is well were swept as ever.
func (w *faultWorld) spared() {
	w.t.Helper()
	w.truthful()
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run JOIN syncer.app USING (app_id) WHERE name IN ('main', 'chat') AND status <> 'succeeded'`)
	w.wantSQL(fmt.Sprint(2*w.users), `SELECT count(*) FROM syncer.presence_snapshot JOIN syncer.app USING (app_id) WHERE name IN ('main', 'chat')`)
}

// heals ends the faults, sweeps once more and checks that all is as it was served.
func (w *faultWorld) heals() {
	w.t.Helper()
	w.end()
	w.backfill(exitDone)
	w.each(", over", (*faulty).asServed)
	w.spared()
}

// event is a line of the log.
type event struct{ Level, Message, App, Class, Code, Error string }

// events are the lines of a log with one message, of one app.
func (w *world) events(stderr, app, message string) (all []event) {
	w.t.Helper()
	for line := range strings.Lines(stderr) {
		var e event
		if json.Unmarshal([]byte(line), &e) == nil && e.Message == message && e.App == app {
			all = append(all, e)
		}
	}
	return all
}

// listenAt lets a simulator answer at one more address.
func (w *faultWorld) listenAt(address string, sim *imsim.Server) {
	w.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- sim.Serve(ctx, l) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			w.t.Error(err)
		}
	})
}
