package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"syncer/internal/imsim"
)

// ids are those of the users first to last.
func ids(first, last int) (all []string) {
	for n := first; n <= last; n++ {
		all = append(all, fmt.Sprintf("u%05d", n))
	}
	return all
}

// oneOfEach is what failures says of one user who fails everywhere.
func oneOfEach(user, tencentPresence, tencentAccounts, openIM string) []string {
	line := func(api, code string) string { return fmt.Sprintf("%s %s: 1, %s to %s", api, code, user, user) }
	return []string{line("tencent presence", tencentPresence), line("tencent accounts", tencentAccounts), line("openim presence", openIM), line("openim accounts", openIM)}
}

// TestAPIFaults_users: users whom the API rejects, or leaves out, fail alone, exit
// code 3: they keep what was known of them, all others are written as served. When
// they succeed, their failures go.
func TestAPIFaults_users(t *testing.T) {
	t.Parallel()
	const poison, missing = "u00042", "u00043"
	w := newFaultWorld(t, 500, 500,
		&faulty{name: "an id missing", fault: imsim.Fault{Kind: imsim.FaultDrop, IDs: []string{missing}}, renewed: true,
			failed: oneOfEach(missing, "missing", "missing", "missing")},
		&faulty{name: "one poison id among 500", fault: imsim.Fault{Kind: imsim.FaultPoison, IDs: []string{poison}},
			failed: oneOfEach(poison, "90003", "70402", "1001")},
		&faulty{name: "code: per user", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultUserCode, IDs: []string{poison}},
			failed: oneOfEach(poison, "70107", "70107", "")[:2]},
		&faulty{name: "a whole page of poison ids", fault: imsim.Fault{Kind: imsim.FaultPoison, IDs: ids(501, 520)},
			failed: []string{"tencent presence 90003: 20, u00501 to u00520", "tencent accounts 70402: 20, u00501 to u00520",
				"openim presence 1001: 20, u00501 to u00520", "openim accounts 1001: 20, u00501 to u00520"}},
		&faulty{name: "all accounts fail", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultUserCode, IDs: ids(1, 520)}, free: true,
			more: []imsim.Fault{{Path: "/user/*", Kind: imsim.FaultDrop, IDs: ids(1, 520)}},
			failed: []string{"tencent presence 70107: 520, u00001 to u00520", "tencent accounts 70107: 520, u00001 to u00520",
				"openim presence missing: 520, u00001 to u00520", "openim accounts missing: 520, u00001 to u00520"}},
	)
	w.backfill(exitDone)
	w.change()
	w.begin()
	w.backfill(exitPartial)
	w.each("", func(f *faulty) {
		if len(f.failed) == 2 {
			f.ended("partial", "partial", "succeeded", "succeeded")
		} else {
			f.ended("partial")
		}
		f.failures(f.failed...)
		w.storedAsServed(f.sim, f.stored())
		f.noFlood()
		// Halving 500 finds one id with two calls for each of nine halves, and asks
		// one more for each of a page that is poison as a whole.
		if made := f.made() - f.calls; made > w.healthy()+len(apiPaths)*2*20 {
			w.t.Errorf("%d calls were made, %d would do when all is well", made, w.healthy())
		}
	})
	w.spared()
	w.heals()
}

// TestAPIFaults_revoked: signatures and tokens that the backend refuses from the
// middle of a run on are made anew, once for all calls in flight; the runs go
// through.
func TestAPIFaults_revoked(t *testing.T) {
	t.Parallel()
	revoked := &faulty{name: "revoked or kicked", rate: 10}
	w := newFaultWorld(t, 300, 10, revoked,
		&faulty{name: "expired", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultCode, Code: 70001, After: 10, Times: 1, Echo: true}, renewed: true,
			more: []imsim.Fault{{Path: "/user/*", Kind: imsim.FaultCode, Code: 1501, After: 10, Times: 1, Echo: true}}},
		&faulty{name: "void or forgotten", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultCode, Code: 70052, After: 10, Times: 1}, renewed: true,
			more: []imsim.Fault{{Path: "/user/*", Kind: imsim.FaultCode, Code: 1507, After: 10, Times: 1}}},
	)
	w.begin()
	p := w.begun()
	calls := func(path string) int { return revoked.sim.Stats().APIs[path].Calls }
	w.eventually("all runs are under way", func() bool {
		return !slices.ContainsFunc(apiPaths, func(path string) bool { return calls(path) == 0 })
	})
	// Signatures are dated in seconds: one made in the same second would be void too.
	second := time.Now().Unix()
	w.eventually("the second is over", func() bool { return time.Now().Unix() > second })
	revoked.sim.RevokeSignatures()
	revoked.sim.KickTokens()
	p.wait(exitDone)
	stats := revoked.sim.Stats().APIs
	// The runs of an app share a signature or token: either may find it refused.
	tencent := stats[imsim.PathQueryOnlineStatus].Unauthorised + stats[imsim.PathTencentAccounts].Unauthorised
	openIM := stats[imsim.PathOpenIMPresence].Unauthorised + stats[imsim.PathOpenIMAccounts].Unauthorised
	if tencent == 0 || openIM == 0 {
		t.Errorf("%d calls of Tencent and %d of OpenIM were refused, want some", tencent, openIM)
	}
	if made := revoked.made(); made < w.healthy()+tencent+openIM || made > 2*w.healthy() {
		t.Errorf("%d calls, want %d and one more for each of %d that were refused", made, w.healthy(), tencent+openIM)
	}
	if logins := stats[imsim.PathAdminToken].Calls; logins != 2 {
		t.Errorf("%d logins, want 2", logins)
	}
	revoked.ended("succeeded")
	revoked.asServed()
	for _, f := range w.faulty[1:] {
		f.passed()
	}
	w.spared()
}
