package jobs

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// TestLimits is what the API side sees of a backfill of everything: never more
// users a call, nor more calls a second, than it allows, however many engines
// there are. Calls that a busy machine holds up bunch together: the engines stay so
// far below the limit that they would have to be held up for a second.
func TestLimits(t *testing.T) {
	t.Parallel()
	for _, engines := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d engines", engines), func(t *testing.T) {
			t.Parallel()
			testLimits(t, engines)
		})
	}
}

func testLimits(t *testing.T, engines int) {
	const (
		users = 6000
		limit = 40 // calls a second of each API
	)
	w := setup(t, worldOptions{
		users:   users,
		tencent: imsim.Tencent{PresenceRate: limit, AccountsRate: limit},
		openIM:  imsim.OpenIM{PresenceRate: limit, AccountsRate: limit},
	})
	var e *testEngine
	for i := range engines {
		s := w.spec()
		s.Process = fmt.Sprintf("engine-%d", i+1)
		s.Rate, s.Batch, s.Range, s.Page = limit/2, 100, 900, 300
		e = w.engine(s)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	owners := make(map[string]bool)
	for provider := range e.apps {
		for _, kind := range imclient.Kinds() {
			run := w.start(e, provider, kind)
			all.Go(func() {
				run, err := e.WaitRun(w.ctx, run, func(run repo.Run) {
					now := query(w, pgx.RowTo[string], `SELECT DISTINCT owner FROM syncer.sync_range WHERE run_id = $1 AND owner IS NOT NULL`, run.ID)
					mu.Lock()
					defer mu.Unlock()
					for _, owner := range now {
						owners[owner] = true
					}
				})
				if err != nil || run.Status != repo.RunSucceeded || run.Users != users || run.Retries != 0 {
					t.Errorf("run %+v, %v", run, err)
				}
			})
		}
	}
	all.Wait()
	if len(owners) != engines {
		t.Errorf("the engines %v have worked on the runs, want %d", owners, engines)
	}
	w.wellBehaved(users, limit, engines)
	for _, app := range e.apps {
		for _, k := range bothTables {
			w.truthful(k, app, userIDs(users))
		}
	}
}

// wellBehaved checks what the API side saw of one backfill of both kinds.
func (w *world) wellBehaved(users, limit, engines int) {
	w.t.Helper()
	stats := w.sim.Stats()
	maxIDs := map[string]int{imsim.PathQueryOnlineStatus: 500, imsim.PathTencentAccounts: 100, imsim.PathOpenIMPresence: 100, imsim.PathOpenIMAccounts: 100}
	for path, s := range stats.APIs {
		if strings.HasPrefix(path, "/auth/") {
			if s.Calls != engines {
				w.t.Errorf("%d logins of %d engines", s.Calls, engines)
			}
			continue
		}
		if s.MaxIDs > maxIDs[path] || s.MaxPerSecond > limit {
			w.t.Errorf("%s: %d users in one call, %d calls in one second", path, s.MaxIDs, s.MaxPerSecond)
		}
		// No id twice, a nonce of its own for each call, valid signatures and
		// tokens, no rate-limit answer; and each user was asked about once.
		s.MaxIDs, s.MaxPerSecond, s.Calls = 0, 0, 0
		if diff := cmp.Diff(imsim.APIStats{IDs: users}, s); diff != "" {
			w.t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	// A few calls of each of two clients are on the wire at once.
	if most := 24 * engines; stats.Connections > most {
		w.t.Errorf("%d connections for %d calls, want %d at most: they are not kept alive", stats.Connections, w.calls(), most)
	}
}
