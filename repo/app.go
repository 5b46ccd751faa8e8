package repo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
)

// App is one IM tenant as the tables know it.
type App struct {
	ID       int16
	Name     string
	Provider imclient.Provider
	// Tenant is an SDKAppID, or the normalised address of an OpenIM deployment; "": not
	// recorded yet.
	Tenant string
}

const findAppSQL = `
SELECT app_id, name, provider, coalesce(tenant, '')
FROM syncer.app
WHERE name = $1`

const addAppSQL = `
INSERT INTO syncer.app (name, provider, created_at, tenant, tenant_since)
VALUES ($1, $2, $3, $4, $3)
ON CONFLICT (name) DO NOTHING`

// EnsureApp returns the app of a name, and adds it if it is new. It fails if the name has
// another provider or tenant: the history would mix two populations. The tenant is bound
// once the first value of a user is stored, so that a mistake in a first configuration can
// be corrected. From then on this store starts, resumes, plans and claims the app's runs only
// while the database has the same app under the same number: see ErrMoved and ErrAppLost.
func (s *Store) EnsureApp(ctx context.Context, name string, provider imclient.Provider, tenant string) (App, error) {
	app, err := s.FindApp(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := s.Exec(ctx, addAppSQL, name, provider, s.Now(), tenant); err != nil {
			return App{}, fmt.Errorf("add app %s: %w", name, s.ExplainRefusal(ctx, err))
		}
		app, err = s.FindApp(ctx, name)
	}
	if err == nil && app.Provider == provider && app.Tenant != tenant {
		app, err = s.bind(ctx, app, tenant)
	}
	if err == nil {
		err = app.mismatch(provider, tenant)
	}
	if err != nil {
		return App{}, err
	}
	s.appsMu.Lock()
	defer s.appsMu.Unlock()
	apps := maps.Clone(s.apps)
	if apps == nil {
		apps = make(map[int16]App)
	}
	maps.DeleteFunc(apps, func(_ int16, other App) bool { return other.Name == name }) // a number that was lost
	apps[app.ID] = app
	s.apps = apps
	return app, nil
}

// CheckApp returns the error that EnsureApp would return, and changes nothing.
func (s *Store) CheckApp(ctx context.Context, name string, provider imclient.Provider, tenant string) error {
	app, err := s.FindApp(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	mismatch := app.mismatch(provider, tenant)
	if mismatch == nil || app.Provider != provider {
		return mismatch
	}
	var bound bool
	if err := s.QueryRow(ctx, boundSQL, app.ID).Scan(&bound); err != nil {
		return fmt.Errorf("look whether app %s has any history: %w", name, err)
	}
	if !bound {
		return nil
	}
	return mismatch
}

// mismatch returns an error if a configuration has another provider or tenant under the
// app's name.
func (a App) mismatch(provider imclient.Provider, tenant string) error {
	switch {
	case a.Provider != provider:
		return fmt.Errorf("app %q was %s so far and is %s in the configuration now: give the new one another name", a.Name, a.Provider, provider)
	case a.Tenant == tenant:
		return nil
	case !provider.HasAddress():
		return fmt.Errorf("app %q was SDKAppID %s so far and is SDKAppID %s in the configuration now: "+
			"its history would mix the users of both; put sdk_app_id back, or give the new one another name", a.Name, a.Tenant, tenant)
	default:
		return fmt.Errorf("app %q was the deployment at %s so far and is at %s in the configuration now: "+
			"if that is another deployment, give it another name, or its history would mix the users of both; "+
			"if the deployment has moved, stop the processes that have the old address and run: syncer app moved %s", a.Name, a.Tenant, tenant, a.Name)
	}
}

// An app is bound to its tenant once a value of a user is known, or a run, which may find
// one, is running.
const boundSQL = `
SELECT EXISTS (SELECT FROM syncer.presence_snapshot WHERE app_id = $1)
    OR EXISTS (SELECT FROM syncer.account_snapshot WHERE app_id = $1)
    OR EXISTS (SELECT FROM syncer.presence_history WHERE app_id = $1)
    OR EXISTS (SELECT FROM syncer.account_history WHERE app_id = $1)
    OR EXISTS (SELECT FROM syncer.sync_run WHERE app_id = $1 AND status = 'running')`

// While the lock is held no run of the app is opened: starting one takes FOR KEY SHARE, for
// the foreign key, and resuming one takes it with keepAppSQL.
const lockAppSQL = `
SELECT app_id, name, provider, coalesce(tenant, '')
FROM syncer.app
WHERE app_id = $1
FOR UPDATE`

const keepAppSQL = `
SELECT app_id, name, provider, coalesce(tenant, '')
FROM syncer.app
WHERE app_id = $1
FOR SHARE`

// keepApp keeps an app from being moved, and hints from being written, until the end of the
// transaction. The errors are those of CheckApps.
func (s *Store) keepApp(ctx context.Context, tx *pg.Tx, id int16) error {
	return s.lockKnownApp(ctx, tx, keepAppSQL, id)
}

// lockKnownApp locks an app with a statement as lockAppSQL. The errors are those of
// CheckApps.
func (s *Store) lockKnownApp(ctx context.Context, tx *pg.Tx, statement string, id int16) error {
	app, err := lockApp(ctx, tx, statement, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return s.lostApp(id)
	}
	if err != nil {
		return err
	}
	return s.recognise(app)
}

const bindAppSQL = `
UPDATE syncer.app
SET tenant = $2, tenant_since = $3
WHERE app_id = $1`

// bind binds an app to a tenant if it has none, or nothing is known of that one's users. It
// returns the app as it is then.
func (s *Store) bind(ctx context.Context, app App, tenant string) (App, error) {
	err := s.InTx(ctx, func(tx *pg.Tx) (err error) {
		if app, err = lockApp(ctx, tx, lockAppSQL, app.ID); err != nil {
			return err
		}
		bound := false
		if app.Tenant != "" {
			err = tx.QueryRow(ctx, boundSQL, app.ID).Scan(&bound)
		}
		if err != nil || bound {
			return err
		}
		app.Tenant = tenant
		_, err = tx.Exec(ctx, bindAppSQL, app.ID, tenant, s.Now())
		return err
	})
	if err != nil {
		return App{}, fmt.Errorf("record the tenant of app %s: %w", app.Name, err)
	}
	return app, nil
}

func lockApp(ctx context.Context, tx *pg.Tx, statement string, id int16) (app App, err error) {
	err = tx.QueryRow(ctx, statement, id).Scan(&app.ID, &app.Name, &app.Provider, &app.Tenant)
	return app, err
}

const moveAppSQL = `
UPDATE syncer.app
SET tenant = $2, tenant_since = $3,
    earlier_tenants = earlier_tenants || jsonb_build_object('tenant', tenant, 'since', tenant_since, 'until', $3::timestamptz)
WHERE app_id = $1`

const openRunsSQL = `
SELECT run_id
FROM syncer.sync_run
WHERE app_id = $1 AND status = 'running'
ORDER BY run_id`

// ErrMoved reports that an app has moved to another tenant since this process started.
var ErrMoved = errors.New("the app has moved (syncer app moved): restart this process with the present configuration")

// MoveApp records that an app's tenant has a new address, with the same users, and cancels
// the running runs. Processes with the old address write nothing from then on: the runs of
// their pages are closed, and they start, plan and claim nothing more. It returns the old address, which
// is the new one if nothing changed, and the number of runs cancelled.
func (s *Store) MoveApp(ctx context.Context, app App, tenant string) (from string, cancelled int, err error) {
	err = s.InTx(ctx, func(tx *pg.Tx) error {
		now, err := lockApp(ctx, tx, lockAppSQL, app.ID)
		if err != nil {
			return err
		}
		if from, cancelled = now.Tenant, 0; from == tenant {
			return nil
		}
		open, err := pg.Collect(ctx, tx, pgx.RowTo[int64], openRunsSQL, app.ID)
		if err != nil {
			return err
		}
		for _, runID := range open {
			if err := lockRun(ctx, tx, runID, forEnd); errors.Is(err, ErrGone) {
				continue // closed meanwhile
			} else if err != nil {
				return err
			}
			if err := s.closeRun(ctx, tx, runID, RunCancelled, "the deployment moved to "+tenant); err != nil {
				return err
			}
			cancelled++
		}
		_, err = tx.Exec(ctx, moveAppSQL, app.ID, tenant, s.Now())
		return err
	})
	if err != nil {
		return "", 0, fmt.Errorf("move app %s: %w", app.Name, err)
	}
	return from, cancelled, nil
}

// ErrAppLost reports that the database no longer has an app under the number with which
// EnsureApp found it: an asynchronous failover or the restore of a backup lost the app's
// row. The number may belong to another app.
var ErrAppLost = errors.New("the database no longer has this app under the number that this process knows: its row was lost in a failover, or a backup was restored; " +
	"restart this process, which adds the app again")

// knownApps returns the apps as EnsureApp found them, by number.
func (s *Store) knownApps() map[int16]App {
	s.appsMu.Lock()
	defer s.appsMu.Unlock()
	return s.apps
}

// sameAppSQL is the condition that app a is the one that this process knows under its
// number, or that it knows none. $4 is knownIdentities.
const sameAppSQL = `coalesce($4::jsonb -> a.app_id::text = jsonb_build_array(a.name, a.provider, a.tenant), true)`

// knownIdentities returns the argument of sameAppSQL.
func (s *Store) knownIdentities() map[int16][3]string {
	identities := make(map[int16][3]string)
	for id, app := range s.knownApps() {
		identities[id] = [...]string{app.Name, string(app.Provider), app.Tenant}
	}
	return identities
}

// recognise compares an app in the database with the one that this process knows under
// its number. It returns ErrMoved if the tenant differs, and ErrAppLost if the app does.
func (s *Store) recognise(now App) error {
	known, ok := s.knownApps()[now.ID]
	switch {
	case !ok || now == known:
		return nil
	case now.Name == known.Name && now.Provider == known.Provider:
		return ErrMoved
	default:
		return s.lostApp(now.ID)
	}
}

func (s *Store) lostApp(id int16) error {
	return fmt.Errorf("app %q: %w", s.knownApps()[id].Name, ErrAppLost)
}

const checkAppsSQL = `
SELECT app_id, name, provider, coalesce(tenant, '')
FROM syncer.app
WHERE app_id = ANY ($1)`

// CheckApps returns ErrAppLost or ErrMoved, wrapped, unless the database has each app as
// EnsureApp found it.
func (s *Store) CheckApps(ctx context.Context) error {
	known := s.knownApps()
	found, err := pg.Collect(ctx, s, pgx.RowToStructByPos[App], checkAppsSQL, slices.Collect(maps.Keys(known)))
	if err != nil {
		return fmt.Errorf("compare the apps with the database's: %w", err)
	}
	lost := maps.Clone(known)
	var errs []error
	for _, app := range found {
		delete(lost, app.ID)
		errs = append(errs, s.recognise(app))
	}
	for id := range lost {
		errs = append(errs, s.lostApp(id))
	}
	return errors.Join(errs...)
}

const appsSQL = `
SELECT app_id, name, provider, coalesce(tenant, '')
FROM syncer.app
ORDER BY name`

// Apps returns all apps in the database, by name.
func (s *Store) Apps(ctx context.Context) ([]App, error) {
	apps, err := pg.Collect(ctx, s, pgx.RowToStructByPos[App], appsSQL)
	if err != nil {
		return nil, fmt.Errorf("list the apps: %w", s.ExplainRefusal(ctx, err))
	}
	return apps, nil
}

// FindApp returns the app of a name. The error wraps pgx.ErrNoRows if there is none.
func (s *Store) FindApp(ctx context.Context, name string) (App, error) {
	var app App
	if err := s.QueryRow(ctx, findAppSQL, name).Scan(&app.ID, &app.Name, &app.Provider, &app.Tenant); err != nil {
		return App{}, fmt.Errorf("find app %s: %w", name, err)
	}
	return app, nil
}
