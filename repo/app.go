package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
)

// App is one IM tenant as the tables know it.
type App struct {
	ID       int16
	Name     string
	Provider imclient.Provider
}

const findAppSQL = `
SELECT app_id, name, provider
FROM syncer.app
WHERE name = $1`

const addAppSQL = `
INSERT INTO syncer.app (name, provider, created_at)
VALUES ($1, $2, $3)
ON CONFLICT (name) DO NOTHING`

// EnsureApp gives the app of that name and adds it when it is new. A name that
// stands for an app of another provider is an error: its history would mix two
// populations.
func (s *Store) EnsureApp(ctx context.Context, name string, provider imclient.Provider) (App, error) {
	app, err := s.FindApp(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := s.pool.Exec(ctx, s.sql(addAppSQL), name, provider, s.Now()); err != nil {
			return App{}, fmt.Errorf("add app %s: %w", name, err)
		}
		app, err = s.FindApp(ctx, name)
	}
	if err != nil {
		return App{}, err
	}
	if app.Provider != provider {
		return App{}, fmt.Errorf("app %q was %s so far and is %s in the configuration now: give the new one another name", name, app.Provider, provider)
	}
	return app, nil
}

// FindApp gives the app of that name, or pgx.ErrNoRows, wrapped.
func (s *Store) FindApp(ctx context.Context, name string) (App, error) {
	var app App
	if err := s.pool.QueryRow(ctx, s.sql(findAppSQL), name).Scan(&app.ID, &app.Name, &app.Provider); err != nil {
		return App{}, fmt.Errorf("find app %s: %w", name, err)
	}
	return app, nil
}
