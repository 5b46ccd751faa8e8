// Package lab simulates days of syncer in seconds: the real engine, clients and
// database against the simulator (package imsim), on a clock that jumps from tick to
// tick. The demo shows a week; tests compare what views report about such days with
// what the simulator served.
package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/imclient/openim"
	"syncer/imclient/tencent"
	"syncer/internal/imsim"
	"syncer/internal/pg"
	"syncer/jobs"
	"syncer/migrations"
	"syncer/repo"
	"syncer/repo/userstable"
)

// Config configures a Simulation.
type Config struct {
	URL    string           // of an empty database
	Users  int              // rows of its table public.users: id 1…n, im_id user-0000001…
	Start  time.Time        // of simulated time; in the past
	Every  time.Duration    // between two presence sweeps
	People imsim.Population // nil: imsim.NewDaily
	Log    zerolog.Logger
}

// Simulation is a system on simulated time, with one app of each provider, named
// after it. Open returns one; Close it.
type Simulation struct {
	Clock   *Clock
	Backend *imsim.Local
	Apps    []repo.App

	store   *repo.Store
	engine  *jobs.Engine
	every   time.Duration
	closers []func() error
}

// None of these is secret: they are the simulator's.
const (
	sdkAppID      = 1400000001
	identifier    = "administrator"
	tencentSecret = "the simulator's secret key for Tencent"
	openIMAdmin   = "imAdmin"
	openIMSecret  = "the simulator's secret for OpenIM"
)

// collapseDelay is short because the clock does not jump within a run.
const collapseDelay = 200 * time.Millisecond

// callRate is far above what a small simulation needs.
const callRate = 5000

// Open makes the users table and the schema, and starts the providers and an engine.
func Open(ctx context.Context, c Config) (_ *Simulation, err error) {
	s := &Simulation{Clock: NewClock(c.Start), every: c.Every}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := prepare(ctx, c); err != nil {
		return nil, err
	}
	if err := s.serve(c); err != nil {
		return nil, err
	}
	s.store, err = repo.Open(ctx, pg.Config{URL: c.URL, Schema: "syncer", MaxConns: 8, Process: "simulation", Now: s.Clock.Now})
	if err != nil {
		return nil, err
	}
	s.atClose(s.store.Close)
	var apps []*jobs.App
	for _, provider := range []imclient.Provider{imclient.ProviderTencent, imclient.ProviderOpenIM} {
		app, err := s.open(ctx, c, provider)
		if err != nil {
			return nil, fmt.Errorf("app %s: %w", provider, err)
		}
		apps = append(apps, app)
		s.Apps = append(s.Apps, app.App)
	}
	s.engine, err = jobs.New(s.store, apps, jobs.Config{
		RangeUsers: 50_000, PageUsers: 5_000, Workers: 2, RescueAfter: time.Minute, Partition: "day", ReportZone: time.UTC,
		CollapseRatio: 0.5, CollapseMin: 30, CollapseDelay: collapseDelay, RemovalRatio: 0.5, RemovalMin: 1000, Outage: time.Hour,
		HintShare: 0.2, HintsPending: 100_000,
		Metrics: jobs.NewMetrics(prometheus.NewRegistry()), Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := s.engine.Start(ctx); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() error {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return s.engine.Stop(stop)
	})
	return s, nil
}

func (s *Simulation) atClose(do func()) {
	s.closers = append(s.closers, func() error { do(); return nil })
}

// usersSQL makes the users table.
const usersSQL = `
CREATE TABLE public.users (id bigint PRIMARY KEY, im_id text NOT NULL);
INSERT INTO public.users SELECT n, 'user-' || lpad(n::text, 7, '0') FROM generate_series(1, %d) AS n;
ANALYZE public.users`

// prepare makes the users table and syncer's schema.
func prepare(ctx context.Context, c Config) error {
	conn, err := pgx.Connect(ctx, c.URL)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, fmt.Sprintf(usersSQL, c.Users))
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("make the users table: %w", err)
	}
	return migrate(ctx, c.URL)
}

func migrate(ctx context.Context, url string) error {
	m, err := migrations.Open(ctx, migrations.Config{URL: url, Schema: "syncer"})
	if err != nil {
		return err
	}
	defer m.Close()
	_, err = m.Up(ctx)
	return err
}

// serve starts the simulator.
func (s *Simulation) serve(c Config) (err error) {
	people := c.People
	if people == nil {
		people = imsim.NewDaily(1, c.Start)
	}
	s.Backend, err = imsim.Start(imsim.Config{
		Tencent:    &imsim.Tencent{SDKAppID: sdkAppID, Admins: []string{identifier}, SecretKey: tencentSecret, PresenceRate: -1, AccountsRate: -1},
		OpenIM:     &imsim.OpenIM{AdminUserID: openIMAdmin, Secret: openIMSecret},
		Population: people,
		Now:        s.Clock.Now,
	}, "127.0.0.1")
	if err == nil {
		s.closers = append(s.closers, s.Backend.Close)
	}
	return err
}

// open returns an app with its client.
func (s *Simulation) open(ctx context.Context, c Config, provider imclient.Provider) (*jobs.App, error) {
	app, err := s.store.EnsureApp(ctx, string(provider), provider, "simulated "+string(provider))
	if err != nil {
		return nil, err
	}
	users, err := userstable.Open(ctx, userstable.Config{URL: c.URL, Table: []string{"public", "users"}, KeyColumn: "id", UserID: "im_id"})
	if err != nil {
		return nil, err
	}
	s.atClose(users.Close)
	gate := func(kind imclient.Kind) *imclient.Gate {
		return imclient.NewGate(s.store.Quota(app.ID, kind, callRate), s.Clock.Now)
	}
	opened := &jobs.App{App: app, Users: users}
	if provider == imclient.ProviderTencent {
		client, err := tencent.New(tencent.Config{
			SDKAppID: sdkAppID, Identifier: identifier, SecretKey: tencentSecret, BaseURL: s.Backend.URL,
			PresenceAPI: "query_online_status", Detail: true, UserSigTTL: 24 * time.Hour, Log: c.Log, HTTPConfig: imclient.HTTPConfig{Now: s.Clock.Now},
			PresenceGate: gate(imclient.KindPresence), AccountsGate: gate(imclient.KindAccounts),
		})
		if err != nil {
			return nil, err
		}
		s.atClose(client.Close)
		opened.Presence, opened.Accounts = client, client
		return opened, nil
	}
	client, err := openim.New(openim.Config{
		BaseURL: s.Backend.URL, AdminUserID: openIMAdmin, Secret: openIMSecret, PresenceBatch: 500, AccountsBatch: 500,
		Log: c.Log, HTTPConfig: imclient.HTTPConfig{Now: s.Clock.Now},
		PresenceGate: gate(imclient.KindPresence), AccountsGate: gate(imclient.KindAccounts),
	})
	if err != nil {
		return nil, err
	}
	s.atClose(client.Close)
	opened.Presence, opened.Accounts = client, client
	return opened, nil
}

// Refuse makes both APIs reject the admin, until Recover.
func (s *Simulation) Refuse() error {
	_, err := s.Backend.AddFault(imsim.Fault{Kind: imsim.FaultNotAdmin})
	return err
}

// LoseGateway disconnects OpenIM's API from its message gateway, until Recover: it
// reports, with success, that all users are offline.
func (s *Simulation) LoseGateway() error {
	_, err := s.Backend.AddFault(imsim.Fault{Kind: imsim.FaultGatewayLost, Share: 1})
	return err
}

// Recover ends all faults.
func (s *Simulation) Recover() { s.Backend.ClearFaults() }

// Presence jumps to a time and runs a presence sweep of each app. It returns the runs
// in the order of Apps.
func (s *Simulation) Presence(ctx context.Context, at time.Time) ([]repo.Run, error) {
	return s.tick(ctx, imclient.KindPresence, at)
}

// Hear lets hooks of an app arrive at a time, or at once if it is past, and looks at the users
// whom they name.
func (s *Simulation) Hear(ctx context.Context, app repo.App, at time.Time, hooks []imclient.Hook) error {
	s.Clock.Reach(at)
	hinter := s.engine.Hints(app.ID)
	hinter.Tell(hooks, s.Clock.Now())
	for more := true; more; {
		var err error
		if more, err = hinter.Look(ctx); err != nil {
			return fmt.Errorf("look at %d users of %s: %w", len(hooks), app.Name, err)
		}
	}
	return nil
}

// Accounts is Presence for the import status.
func (s *Simulation) Accounts(ctx context.Context, at time.Time) ([]repo.Run, error) {
	return s.tick(ctx, imclient.KindAccounts, at)
}

func (s *Simulation) tick(ctx context.Context, kind imclient.Kind, at time.Time) ([]repo.Run, error) {
	if err := s.Clock.JumpTo(at); err != nil {
		return nil, err
	}
	job := jobs.Job{Name: string(kind), Kind: kind, MaxGap: 3 * s.every}
	if kind == imclient.KindAccounts {
		job.MaxGap = 3 * 24 * time.Hour
	}
	runs := make([]repo.Run, len(s.Apps))
	group, ctx := errgroup.WithContext(ctx)
	for i, app := range s.Apps {
		group.Go(func() error {
			run, err := s.engine.StartTick(ctx, job, app.ID, at)
			if err == nil {
				runs[i], err = s.engine.WaitRun(ctx, run, func(repo.Run) {})
			}
			if err != nil {
				return fmt.Errorf("sweep %s of %s at %s: %w", kind, app.Name, at.Format(time.DateTime), err)
			}
			return nil
		})
	}
	return runs, group.Wait()
}

// Close stops everything.
func (s *Simulation) Close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}
