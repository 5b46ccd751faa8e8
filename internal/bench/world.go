package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// world is a database with a users table and syncer's schema.
type world struct {
	*bench
	name  string
	users int
	url   string
	db    *pgx.Conn
}

// Text keys with the collation of syncer's own tables: the table and the
// snapshots sort alike, which the floor makes use of.
const usersTableSQL = `
CREATE TABLE public.users (
    id  text COLLATE "C" PRIMARY KEY,
    app int  NOT NULL
)`

const fillUsersSQL = `
INSERT INTO public.users (id, app)
SELECT 'user-' || lpad(n::text, 8, '0'), (n - 1) / $2::int
FROM generate_series(1, $1::int) AS n`

// appUsersSQL is for apps that have users of their own in the table.
const appUsersSQL = `CREATE UNIQUE INDEX users_of_app ON public.users (app, id)`

// newWorld makes a database without any snapshot, in place of the one before;
// each app has so many of the users.
func (b *bench) newWorld(ctx context.Context, users, perApp int) (*world, error) {
	if err := b.dropWorld(ctx); err != nil {
		return nil, err
	}
	w := &world{bench: b, name: fmt.Sprintf("users_%d", users), users: users}
	if err := b.admin(ctx, "CREATE DATABASE "+w.name); err != nil {
		return nil, err
	}
	w.url = b.cluster.URL(w.name)
	db, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return nil, err
	}
	w.db, b.world = db, w
	if err := w.exec(ctx, usersTableSQL); err != nil {
		return nil, err
	}
	if _, err := db.Exec(ctx, fillUsersSQL, users, perApp); err != nil {
		return nil, fmt.Errorf("fill the users table: %w", err)
	}
	if perApp < users {
		if err := w.exec(ctx, appUsersSQL); err != nil {
			return nil, err
		}
	}
	if err := w.exec(ctx, "VACUUM ANALYZE public.users", "SET search_path = syncer"); err != nil {
		return nil, err
	}
	config, err := w.configure("migrate", settings{apps: []app{{name: appName, url: "http://127.0.0.1:1"}}})
	if err != nil {
		return nil, err
	}
	if out, err := b.leash.Command(ctx, b.syncer, "migrate", "up", "--config", config).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("syncer migrate up: %w\n%s", err, out)
	}
	return w, nil
}

// dropWorld makes room for the next one.
func (b *bench) dropWorld(ctx context.Context) error {
	if b.world == nil {
		return nil
	}
	name := b.world.name
	return errors.Join(b.closeWorld(ctx), b.admin(ctx, "DROP DATABASE "+name+" WITH (FORCE)"))
}

func (b *bench) closeWorld(ctx context.Context) error {
	if b.world == nil {
		return nil
	}
	db := b.world.db
	b.world = nil
	return db.Close(ctx)
}

// admin runs statements in a database that is always there.
func (b *bench) admin(ctx context.Context, statements ...string) error {
	db, err := pgx.Connect(ctx, b.cluster.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	for _, statement := range statements {
		if _, err := db.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%w\n%s", err, statement)
		}
	}
	return nil
}

// loaded gives a world of so many users, all of whom have a snapshot of round 0,
// or of a later one if it has been in use.
func (b *bench) loaded(ctx context.Context, users int) (*world, error) {
	if b.world != nil && b.world.users == users {
		return b.world, b.world.tidy(ctx)
	}
	b.say("", "loading %s users", thousands(float64(users)))
	w, err := b.newWorld(ctx, users, users)
	if err != nil {
		return nil, err
	}
	sim, err := b.simulate(ctx, limits{presence: noLimit, accounts: noLimit})
	if err != nil {
		return nil, err
	}
	if _, err := w.backfill(ctx, sim, "presence", anything); err != nil {
		return nil, err
	}
	return w, w.tidy(ctx)
}

// tidy does what autovacuum would do in time, and writes everything down.
func (w *world) tidy(ctx context.Context) error {
	return w.exec(ctx, "VACUUM ANALYZE", "CHECKPOINT")
}

// exec runs statements one after the other.
func (w *world) exec(ctx context.Context, statements ...string) error {
	for _, statement := range statements {
		if _, err := w.db.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%w\n%s", err, statement)
		}
	}
	return nil
}

// walPosition is how much has been written to the write-ahead log ever.
func (w *world) walPosition(ctx context.Context) (bytes int64, err error) {
	err = w.db.QueryRow(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").Scan(&bytes)
	return bytes, err
}

// settings are what differs between configurations.
type settings struct {
	apps  []app
	kind  string        // of the only job; "": none
	every time.Duration // its schedule
	hooks bool          // whether they are received
}

type app struct {
	name, url          string
	presence, accounts int // calls per second
	where              string
}

// appName is what the app is called where there is only one.
const appName = "bench"

// configure writes a configuration and returns its path.
func (w *world) configure(name string, s settings) (string, error) {
	text := fmt.Sprintf("[database]\nurl = %q\n[users]\ntable = \"public.users\"\n[http]\nlisten = \"127.0.0.1:0\"\n", w.url)
	if w.profiles {
		text += "pprof = true\n"
	}
	if s.hooks {
		text += "[hooks]\nlisten = \"127.0.0.1:0\"\n"
	}
	if s.kind == "" {
		text = "jobs = []\n" + text
	}
	for _, a := range s.apps {
		text += fmt.Sprintf("[[apps]]\nname = %q\nprovider = \"tencent\"\n[apps.tencent]\nsdk_app_id = %d\nidentifier = %q\nsecret_key = %q\nbase_url = %q\n",
			a.name, sdkAppID, identifier, secretKey, a.url)
		text += fmt.Sprintf("presence_rate = %d\naccounts_rate = %d\n", max(a.presence, 1), max(a.accounts, 1))
		if s.hooks {
			text += fmt.Sprintf("hook_token = %q\n", hookToken)
		}
		if a.where != "" {
			text += fmt.Sprintf("[apps.users]\nwhere = %q\n", a.where)
		}
	}
	if s.kind != "" {
		text += fmt.Sprintf("[[jobs]]\nname = %q\nkind = %q\nschedule = \"@every %s\"\n", s.kind, s.kind, s.every)
	}
	path := filepath.Join(w.dir, name+".toml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}
