package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"syncer/internal/imsim"
)

// short are timeouts for calls that get no answer.
var short = [2]string{"1s", "4s"}

// TestAPIFaults_pass: what passes within the patience of a batch costs some calls
// and nothing else: all is written as it was served, exit code 0.
func TestAPIFaults_pass(t *testing.T) {
	t.Parallel()
	w := newFaultWorld(t, 130, 100,
		&faulty{name: "502", fault: imsim.Fault{Kind: imsim.FaultStatus, Status: 502, Body: "bad gateway", Times: 2}},
		&faulty{name: "503 with Retry-After", fault: imsim.Fault{Kind: imsim.FaultStatus, Status: 503, RetryAfter: 1, Times: 2}},
		&faulty{name: "504 that repeats the call", fault: imsim.Fault{Kind: imsim.FaultHTML, Status: 504, Times: 2, Echo: true}},
		&faulty{name: "429 with Retry-After", fault: imsim.Fault{Kind: imsim.FaultStatus, Status: 429, RetryAfter: 1, Times: 1, Echo: true}},
		&faulty{name: "connection reset", fault: imsim.Fault{Kind: imsim.FaultReset, Times: 3}},
		&faulty{name: "connection closed", fault: imsim.Fault{Kind: imsim.FaultClose, Times: 3}},
		&faulty{name: "no answer", fault: imsim.Fault{Kind: imsim.FaultHang, Times: 1}, timeouts: short},
		&faulty{name: "slow bytes", fault: imsim.Fault{Kind: imsim.FaultDrip, Times: 1}, timeouts: short},
		&faulty{name: "HTML that repeats the call", fault: imsim.Fault{Kind: imsim.FaultHTML, Times: 2, Echo: true}},
		&faulty{name: "empty", fault: imsim.Fault{Kind: imsim.FaultEmpty, Times: 2}},
		&faulty{name: "truncated", fault: imsim.Fault{Kind: imsim.FaultTruncate, Times: 2}},
		&faulty{name: "far too large", fault: imsim.Fault{Kind: imsim.FaultHuge, Size: 17 << 20, Times: 1}},
		&faulty{name: "wrong JSON types", fault: imsim.Fault{Kind: imsim.FaultWrongTypes, Times: 2}},
		&faulty{name: "login: 502 that repeats the call", fault: imsim.Fault{Path: imsim.PathAdminToken, Kind: imsim.FaultHTML, Status: 502, Times: 2, Echo: true}, free: true},
		&faulty{name: "login: empty", fault: imsim.Fault{Path: imsim.PathAdminToken, Kind: imsim.FaultEmpty, Times: 2}, free: true},
		&faulty{name: "wrong content type", fault: imsim.Fault{Kind: imsim.FaultContentType}, free: true},
		&faulty{name: "ids answered twice", fault: imsim.Fault{Kind: imsim.FaultRepeat, IDs: []string{"u00001", "u00101", "u00130"}}, free: true},
		&faulty{name: "ids never asked for", fault: imsim.Fault{Kind: imsim.FaultUnasked, IDs: []string{"stranger", "administrator", "u00150x"}}, free: true},
		&faulty{name: "an id missing once", fault: imsim.Fault{Kind: imsim.FaultDrop, IDs: []string{"u00042"}, Times: 1}, renewed: true},
		&faulty{name: "code: transient", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultCode, Code: 91000, Times: 2, Echo: true},
			more: []imsim.Fault{{Path: "/user/*", Kind: imsim.FaultCode, Code: 500, Times: 2, Echo: true}}},
		&faulty{name: "code: throttled", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultCode, Code: 60018, Times: 1},
			more: []imsim.Fault{{Path: "/user/*", Kind: imsim.FaultCode, Code: 429, Times: 1}}},
		&faulty{name: "code: unauthorised", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultCode, Code: 70001, Times: 1, Echo: true}, renewed: true,
			more: []imsim.Fault{{Path: "/user/*", Kind: imsim.FaultCode, Code: 1501, Times: 1, Echo: true}}},
		&faulty{name: "code: unknown", fault: imsim.Fault{Kind: imsim.FaultCode, Code: 4711, Times: 2}},
	)
	w.begin()
	w.backfill(exitDone)
	w.each("", (*faulty).passed)
	w.spared()
}

// passed checks what a fault cost that is over.
func (f *faulty) passed() {
	w := f.world
	w.t.Helper()
	hits, made := f.hits(), f.made()-f.calls
	f.ended("succeeded")
	f.asServed()
	if hits == 0 {
		w.t.Error("no call was hit")
	}
	extra, retries := hits, hits
	switch {
	case f.free:
		extra, retries = 0, 0
	case f.renewed:
		retries = 0
	}
	// On a machine that is far too busy calls, or whole pages, are repeated that
	// nothing was done to.
	spare := w.healthy()
	if want := w.healthy() + extra; made < want || made > want+spare {
		w.t.Errorf("%d calls, want %d and one more for each of %d that were hit", made, w.healthy(), extra)
	}
	const retriesSQL = `SELECT sum(retries)::int FROM syncer.sync_run JOIN syncer.app USING (app_id) WHERE name IN ($1, $2) AND run_id > $3`
	got := query(w.world, pgx.RowTo[int], retriesSQL, f.tencent(), f.openIM(), f.first)[0]
	if got > retries+spare || got == 0 && retries > 0 && !f.rangesRepeated() {
		w.t.Errorf("%d calls were retries, want about %d", got, retries)
	}
}

// rangesRepeated reports whether the log says that ranges were returned to the queue: what
// becomes of a batch that has no time left for a retry, on a machine that is far too busy.
func (f *faulty) rangesRepeated() bool {
	for line := range strings.Lines(f.world.output.String()) {
		ours := strings.Contains(line, fmt.Sprintf(`"app":%q`, f.tencent())) || strings.Contains(line, fmt.Sprintf(`"app":%q`, f.openIM()))
		if ours && (strings.Contains(line, "it will be retried") || strings.Contains(line, "the range waits")) {
			return true
		}
	}
	return false
}

// TestAPIFaults_stay: what does not pass fails the runs, exit code 1, with its
// reason; nothing is invented and no user is blamed, other apps go on, and the next
// sweep after it is over completes everything.
func TestAPIFaults_stay(t *testing.T) {
	t.Parallel()
	w := newFaultWorld(t, 130, 100,
		&faulty{name: "502 that repeats the call", fault: imsim.Fault{Kind: imsim.FaultStatus, Status: 502, Echo: true}, says: []string{"HTTP 502 Bad Gateway"}},
		&faulty{name: "connection reset", fault: imsim.Fault{Kind: imsim.FaultReset}, says: []string{"connection reset by peer"}},
		&faulty{name: "connection closed from the second call on", fault: imsim.Fault{Kind: imsim.FaultClose, After: 1}, says: []string{"EOF"}},
		&faulty{name: "no answer, or slow bytes", fault: imsim.Fault{Path: imsim.PathQueryOnlineStatus, Kind: imsim.FaultHang}, more: []imsim.Fault{
			{Path: imsim.PathTencentAccounts, Kind: imsim.FaultDrip}, {Path: imsim.PathOpenIMPresence, Kind: imsim.FaultDrip}, {Path: imsim.PathOpenIMAccounts, Kind: imsim.FaultHang},
		}, timeouts: short, says: []string{"no answer within the timeout of 4s", "no answer within the timeout of 1s"}},
		&faulty{name: "HTML that repeats the call", fault: imsim.Fault{Kind: imsim.FaultHTML, Echo: true}, says: []string{"no reply of the API"}},
		&faulty{name: "empty", fault: imsim.Fault{Kind: imsim.FaultEmpty}, says: []string{"the answer (0 bytes) is cut off"}},
		&faulty{name: "truncated", fault: imsim.Fault{Kind: imsim.FaultTruncate}, says: []string{"unexpected EOF"}},
		&faulty{name: "wrong JSON types", fault: imsim.Fault{Kind: imsim.FaultWrongTypes}, says: []string{"values of the wrong type"}},
		&faulty{name: "code: transient", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultCode, Code: 91000, Echo: true},
			more: []imsim.Fault{{Path: "/user/*", Kind: imsim.FaultCode, Code: 14, Echo: true}}, says: []string{"code 91000", "code 14"}},
	)
	w.backfill(exitDone)
	w.oneAttempt()
	w.change()
	w.begin()
	stderr := w.backfill(exitFailed)
	wantText(t, stderr, "[redacted]") // what repeats the call is in the log, but for its credentials
	w.each("", func(f *faulty) {
		f.ended("failed")
		f.explained()
		for _, app := range []string{f.tencent(), f.openIM()} {
			gaveUp := w.events(stderr, app, "given up")
			if len(gaveUp) == 0 {
				w.t.Errorf("the log does not say that ranges of %s were given up", app)
			}
			for _, e := range gaveUp {
				if e.Class != "transient" {
					w.t.Errorf("the log calls it %+v, want transient", e)
				}
			}
		}
		// Five tries for each batch of the pages that are asked about at once.
		if made := f.made() - f.calls; made > 5*w.healthy() {
			w.t.Errorf("%d calls were made, %d would do when all is well", made, w.healthy())
		}
		f.failures()
		f.nothingInvented()
		f.noFlood()
	})
	w.spared()
	w.heals()
}

// TestAPIFaults_away: no server listens at first, or the DNS does not know the name.
// Calls are held back, but for a probe now and then; a backfill goes on with the
// first answer, and one that was stopped meanwhile is resumed.
func TestAPIFaults_away(t *testing.T) {
	t.Parallel()
	refused := &faulty{name: "connection refused"}
	unknown := &faulty{name: "unknown name", baseURL: "https://im.nowhere.invalid"}
	w := newFaultWorld(t, 130, 100, refused, unknown)
	address := strings.TrimPrefix(w.deadBackend(false), "http://")
	w.write("config.toml", strings.ReplaceAll(w.read("config.toml"), refused.baseURL, "http://"+address))
	p := w.begun()
	w.eventually("no API of the two has given an answer, and calls are held back", func() bool {
		return strings.Count(p.stderr.String(), "the API gives no answer; calls are held back") == 8
	})
	for _, app := range []string{"t0", "o0", "t1", "o1"} {
		w.wantSQL("0", `SELECT (SELECT count(*) FROM syncer.presence_history JOIN syncer.app USING (app_id) WHERE name = $1)
			+ (SELECT count(*) FROM syncer.account_history JOIN syncer.app USING (app_id) WHERE name = $1)
			+ (SELECT count(*) FROM syncer.user_failure JOIN syncer.app USING (app_id) WHERE name = $1)`, app)
	}
	w.listenAt(address, refused.sim)
	w.waitSQL("4", `SELECT count(*) FROM syncer.sync_run JOIN syncer.app USING (app_id) WHERE name IN ('t0', 'o0', 'main', 'chat') AND kind = 'presence' AND status = 'succeeded'`)
	w.waitSQL("4", `SELECT count(*) FROM syncer.sync_run JOIN syncer.app USING (app_id) WHERE name IN ('t0', 'o0', 'main', 'chat') AND kind = 'accounts' AND status = 'succeeded'`)
	p.signal(syscall.SIGTERM)
	_, stderr := p.wait(exitFailed)
	refused.ended("succeeded")
	refused.asServed()
	unknown.ended("cancelled")
	w.spared()
	for _, app := range []string{"t0", "o1"} {
		held := w.events(stderr, app, "the API gives no answer; calls are held back")
		if len(held) != 2 || held[0].Class != "transient" || held[0].Level != "warn" {
			t.Errorf("the log says of the outages of %s: %+v", app, held)
		}
	}
	w.write("config.toml", strings.ReplaceAll(w.read("config.toml"), unknown.baseURL, unknown.simURL))
	w.begun("--resume").wait(exitDone)
	unknown.asServed()
	if made := refused.made() + unknown.made(); made != 2*w.healthy() {
		t.Errorf("%d calls arrived, want %d", made, 2*w.healthy())
	}
}
