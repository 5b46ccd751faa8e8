package repo_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

const tenantsSQL = `SELECT name, tenant, tenant_since, earlier_tenants FROM app ORDER BY name`

// TestTenant: a name stands for one tenant from the first value on that is stored of
// a user.
func TestTenant(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const one, other = "https://one.example", "https://other.example"
	ensure := func(name string, provider imclient.Provider, tenant, want string) {
		t.Helper()
		for what, err := range map[string]error{
			"CheckApp": b.store.CheckApp(t.Context(), name, provider, tenant),
			"EnsureApp": func() error {
				_, err := b.store.EnsureApp(t.Context(), name, provider, tenant)
				return err
			}(),
		} {
			if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s of %s as %s: %v, want %q", what, name, tenant, err, want)
			}
		}
	}
	exec(t, b.conn, `INSERT INTO app (name, provider, created_at) VALUES ('older', 'openim', $1)`, at(0)) // by a program that knows no tenants
	ensure("older", imclient.ProviderOpenIM, one, "")
	ensure("new", imclient.ProviderOpenIM, one, "")
	b.clock.pass(time.Minute)
	ensure("new", imclient.ProviderOpenIM, other, "") // nothing is known of any user
	wantLines(t, b.conn, "apps", tenantsSQL,
		"main 1400000001 12:00:00 []", "new https://other.example 12:01:00 []", "older https://one.example 12:00:00 []")

	r := b.startedRange(t, b.every(time.Minute))
	ensure("main", imclient.ProviderTencent, "1400000002", `app "main" was SDKAppID 1400000001 so far and is SDKAppID 1400000002`) // something may be, any moment
	b.meet(t, r, nil, []string{"alice"})
	b.finish(t, r, "")
	ensure("main", imclient.ProviderTencent, "1400000002", "put sdk_app_id back, or give the new one another name")
	ensure("main", imclient.ProviderTencent, "1400000001", "")
	for _, table := range []string{"presence_snapshot", "account_snapshot", "presence_history", "account_history"} {
		exec(t, b.conn, `TRUNCATE presence_snapshot, account_snapshot, presence_history, account_history`)
		columns := map[string]string{
			"presence_snapshot": `(app_id, user_id, state, platforms, changed_at, asked_at, run_id, since) SELECT app_id, 'u', 'online', '{}', $1, $1, 0, $1`,
			"account_snapshot":  `(app_id, user_id, status, changed_at, asked_at, run_id) SELECT app_id, 'u', 'imported', $1, $1, 0`,
			"presence_history":  `(app_id, user_id, state, platforms, observed_at, run_id) SELECT app_id, 'u', 'online', '{}', $1, 0`,
			"account_history":   `(app_id, user_id, status, observed_at, run_id) SELECT app_id, 'u', 'imported', $1, 0`,
		}[table]
		exec(t, b.conn, `INSERT INTO `+table+columns+` FROM app WHERE name = 'new'`, at(0))
		ensure("new", imclient.ProviderOpenIM, one, `app "new" was the deployment at https://other.example so far and is at https://one.example`)
		ensure("new", imclient.ProviderOpenIM, one, "run: syncer app moved new")
	}
	ensure("new", imclient.ProviderTencent, other, `app "new" was openim so far`)
	ensure("new", imclient.ProviderOpenIM, other, "")
}

// TestMoveApp: what a process with the old address has begun is not written, and it
// starts, plans and claims nothing more; a process with the new one does.
func TestMoveApp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old := b.startedRange(t, b.every(time.Minute))
	b.meet(t, old, nil, []string{"alice"})
	b.clock.pass(time.Minute)
	from, cancelled, err := b.store.MoveApp(t.Context(), b.app, "moved")
	if from != "1400000001" || cancelled != 1 || err != nil {
		t.Fatalf("MoveApp = %q, %d, %v; want the tenant before, and a run cancelled", from, cancelled, err)
	}
	if _, cancelled, err = b.store.MoveApp(t.Context(), b.app, "moved"); cancelled != 0 || err != nil {
		t.Errorf("MoveApp to where it is: %d, %v", cancelled, err)
	}
	wantLines(t, b.conn, "the app", `SELECT tenant, tenant_since, earlier_tenants->0->>'tenant', (earlier_tenants->0->>'since')::timestamptz, (earlier_tenants->0->>'until')::timestamptz, jsonb_array_length(earlier_tenants) FROM app`,
		"moved 12:01:00 1400000001 12:00:00 12:01:00 1")
	wantLines(t, b.conn, "the run", `SELECT status, error FROM sync_run`, "cancelled the deployment moved to moved")
	p := page[imclient.Presence]("k")
	if _, err := b.store.Presence().SavePage(t.Context(), old, p); !errors.Is(err, repo.ErrGone) {
		t.Errorf("a page from the old address: %v, want ErrGone", err)
	}

	mover := b.open(t, "mover")
	app, err := mover.EnsureApp(t.Context(), "main", imclient.ProviderTencent, "moved")
	if err != nil || app.ID != b.app.ID {
		t.Fatalf("EnsureApp after the move = %+v, %v", app, err)
	}
	if _, err := b.store.StartRun(t.Context(), b.every(time.Minute), enqueuePlan); !errors.Is(err, repo.ErrMoved) {
		t.Errorf("StartRun with the old address: %v, want ErrMoved", err)
	}
	runID, err := mover.StartRun(t.Context(), b.every(time.Minute), enqueuePlan)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID)); !errors.Is(err, repo.ErrMoved) {
		t.Errorf("ClaimPlan with the old address: %v, want ErrMoved", err)
	}
	plan, err := mover.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	if err != nil {
		t.Fatal(err)
	}
	if err := mover.AddRange(t.Context(), plan, nil, enqueue); err != nil {
		t.Fatal(err)
	}
	jobID := b.rangeJob(t, runID, 1)
	if _, err := b.store.ClaimRange(t.Context(), runID, 1, jobID, at(0)); !errors.Is(err, repo.ErrMoved) {
		t.Errorf("ClaimRange with the old address: %v, want ErrMoved", err)
	}
	claimed, err := mover.ClaimRange(t.Context(), runID, 1, jobID, at(0))
	if err != nil {
		t.Fatal(err)
	}
	claimed.Done()
	if _, err := b.store.EnsureApp(t.Context(), "main", imclient.ProviderTencent, "1400000001"); err == nil {
		t.Error("the old address is taken back")
	}
}
