package jobs

import (
	"cmp"
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/imclient/openim"
	"syncer/imclient/tencent"
	"syncer/internal/pg"
	"syncer/jobs/ask"
	"syncer/repo"
	"syncer/repo/userstable"
)

// engineSpec says how to make an engine; it can be passed to another process.
type engineSpec struct {
	Database, Base string
	Process        string
	Tenant         string // of all apps
	Providers      []imclient.Provider
	Rate           float64 // calls a second of each API
	Batch          int     // users of a call to OpenIM
	Timeout        time.Duration
	Key, Secret    string
	Users          userstable.Config
	Range, Page    int // users
	CollapseRatio  float64
	CollapseMin    int
	CollapseDelay  time.Duration
	RemovalRatio   float64
	RemovalMin     int
	Workers        int
	RescueAfter    time.Duration
	FirstRetry     time.Duration
	Outage         time.Duration
	Hold           time.Duration // of a batch by a breaker; 0: as it is outside of tests
	MaintainEvery  time.Duration // likewise
	PollOnly       bool
	Salt           repo.Salt
	Hints          int // see Config.HintsPending
	// Now replaces the database's clock; another process cannot have it.
	Now func() time.Time `json:"-"`
}

// spec is what suits most tests: both apps, no rate limit worth the name.
func (w *world) spec() engineSpec {
	return engineSpec{
		Database: w.url, Base: w.base, Process: "engine-1", Tenant: "sim",
		Providers: []imclient.Provider{imclient.ProviderTencent, imclient.ProviderOpenIM},
		Rate:      5000, Batch: 500, Timeout: 10 * time.Second, Key: simKey, Secret: simSecret,
		Users: userstable.Config{URL: w.url, Table: []string{"public", "users"}, KeyColumn: "id", UserID: "uid"},
		Range: 4000, Page: 1000, Workers: 2, RescueAfter: time.Minute, FirstRetry: 100 * time.Millisecond,
		CollapseRatio: 0.5, CollapseMin: 50, CollapseDelay: 100 * time.Millisecond,
		RemovalRatio: 0.5, RemovalMin: 1000,
		Outage: patience,
	}
}

// testEngine is an engine with all that it needs.
type testEngine struct {
	*Engine
	apps     map[imclient.Provider]*App
	registry *prometheus.Registry
	counters *Metrics
	closers  []func()
	stopped  bool
}

// engine starts an engine that is stopped when the test ends.
func (w *world) engine(s engineSpec) *testEngine {
	w.t.Helper()
	e, err := newTestEngine(w.ctx, s, w.log.logger())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(e.close)
	if err := e.Start(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.stop(e, grace) })
	return e
}

// stop stops an engine, unless that was done before, and grants it some time
// for the pages in flight.
func (w *world) stop(e *testEngine, grace time.Duration) {
	w.t.Helper()
	if e.stopped {
		return
	}
	e.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := e.Stop(ctx); err != nil {
		w.t.Errorf("stop: %v", err)
	}
}

// apiClient is what both clients are.
type apiClient interface {
	presenceAPI
	accountsAPI
	Close()
}

// app gives the app of a provider.
func (e *testEngine) app(p imclient.Provider) *App { return e.apps[p] }

func newTestEngine(ctx context.Context, s engineSpec, log zerolog.Logger) (e *testEngine, err error) {
	e = &testEngine{apps: make(map[imclient.Provider]*App), registry: prometheus.NewPedanticRegistry()}
	e.counters = NewMetrics(e.registry)
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	store, err := repo.Open(ctx, pg.Config{URL: s.Database, Schema: "syncer", MaxConns: 6, Process: s.Process, Now: s.Now, PollOnly: s.PollOnly})
	if err != nil {
		return e, err
	}
	e.closers = append(e.closers, store.Close)
	var apps []*App
	for _, provider := range s.Providers {
		app, err := e.open(ctx, s, store, provider, log)
		if err != nil {
			return e, err
		}
		apps = append(apps, app)
		e.apps[provider] = app
	}
	e.Engine, err = New(store, apps, Config{
		RangeUsers: s.Range, PageUsers: s.Page, Workers: s.Workers, RescueAfter: s.RescueAfter,
		Salt:          s.Salt,
		CollapseRatio: s.CollapseRatio, CollapseMin: s.CollapseMin, CollapseDelay: s.CollapseDelay,
		RemovalRatio: s.RemovalRatio, RemovalMin: s.RemovalMin,
		HintShare: 0.2, HintsPending: s.Hints,
		Outage: s.Outage, Partition: "month", ReportZone: time.UTC, Metrics: e.counters, Log: log,
	})
	if err != nil {
		return e, err
	}
	e.workers.firstRetry = s.FirstRetry
	for _, l := range e.lanes {
		l.breaker.Hold = cmp.Or(s.Hold, ask.BatchBudget)
	}
	e.keeper.maintainEvery = cmp.Or(s.MaintainEvery, maintainEvery)
	return e, nil
}

func (e *testEngine) open(ctx context.Context, s engineSpec, store *repo.Store, provider imclient.Provider, log zerolog.Logger) (*App, error) {
	app, err := store.EnsureApp(ctx, string(provider), provider, s.Tenant)
	if err != nil {
		return nil, err
	}
	var quotas []*repo.Quota
	gate := func(kind imclient.Kind) *imclient.Gate {
		quotas = append(quotas, store.Quota(app.ID, kind, s.Rate))
		return imclient.NewGate(quotas[len(quotas)-1], store.Now)
	}
	http := imclient.HTTPConfig{Timeout: s.Timeout, Now: store.Now, Observer: e.counters.Calls(app.Name)}
	var client apiClient
	if provider == imclient.ProviderTencent {
		client, err = tencent.New(tencent.Config{
			SDKAppID: 1400000001, Identifier: "administrator", SecretKey: s.Key, BaseURL: s.Base, Detail: true,
			PresenceGate: gate(imclient.KindPresence), AccountsGate: gate(imclient.KindAccounts), Log: log, HTTPConfig: http,
		})
	} else {
		client, err = openim.New(openim.Config{
			AdminUserID: "imAdmin", Secret: s.Secret, BaseURL: s.Base, PresenceBatch: s.Batch, AccountsBatch: s.Batch,
			PresenceGate: gate(imclient.KindPresence), AccountsGate: gate(imclient.KindAccounts), Log: log, HTTPConfig: http,
		})
	}
	if err != nil {
		return nil, err
	}
	e.closers = append(e.closers, client.Close)
	users, err := userstable.Open(ctx, s.Users)
	if err != nil {
		return nil, err
	}
	e.closers = append(e.closers, users.Close)
	return &App{App: app, Presence: client, Accounts: client, Users: users, Quotas: quotas}, nil
}

func (e *testEngine) close() {
	for i := len(e.closers) - 1; i >= 0; i-- {
		e.closers[i]()
	}
}

// maxBatch is how many users one call of an app may ask about.
func (e *testEngine) maxBatch(kind imclient.Kind, app *App) int {
	if kind == imclient.KindPresence {
		return app.Presence.MaxPresenceBatch()
	}
	return app.Accounts.MaxAccountsBatch()
}
