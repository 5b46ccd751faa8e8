package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/leash"
	"syncer/internal/dev/pgcluster"
)

// makeDir makes the demo's folder, which goes with the demo.
func (d *demo) makeDir() error {
	var err error
	if d.dir, err = os.MkdirTemp("", "syncer-demo-"); err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	d.atEnd(func() error { return os.RemoveAll(d.dir) })
	if d.leash, err = leash.New(d.dir); err != nil {
		return err
	}
	d.atEnd(d.leash.Release)
	return nil
}

func (d *demo) syncer() string { return filepath.Join(d.dir, "syncer") }

// build compiles the program into the demo's folder.
func (d *demo) build(ctx context.Context) error {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("build the program: %w; put the go command into PATH", err)
	}
	cmd := d.leash.Command(ctx, goTool, "build", "-buildvcs=false", "-o", d.syncer(), "syncer/cmd/syncer")
	cmd.Dir = ""                                 // the module's
	cmd.Env = append(cmd.Env, "GOTMPDIR="+d.dir) // removed with the folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build syncer/cmd/syncer (run the demo inside syncer's source): %w\n%s", err, out)
	}
	return nil
}

// startPostgres starts the cluster and makes a database with a users table in it.
func (d *demo) startPostgres(ctx context.Context, bin pgcluster.Binaries) (err error) {
	if d.cluster, err = pgcluster.Start(ctx, pgcluster.Options{Binaries: bin}); err != nil {
		return err
	}
	d.atEnd(d.cluster.Stop)
	if err := d.exec(ctx, "postgres", "CREATE DATABASE app"); err != nil {
		return err
	}
	if err := d.exec(ctx, "app", usersTableSQL); err != nil {
		return err
	}
	return d.signUp(ctx, 1, d.users)
}

const usersTableSQL = `
CREATE TABLE public.users (
    id        bigint PRIMARY KEY,
    im_id     text NOT NULL,
    signed_up timestamptz NOT NULL DEFAULT now()
)`

// signUp adds the users with these numbers.
func (d *demo) signUp(ctx context.Context, from, to int) error {
	return d.exec(ctx, "app", `
INSERT INTO public.users (id, im_id)
SELECT n, 'user-' || lpad(n::text, 6, '0')
FROM generate_series($1::bigint, $2::bigint) AS n`, from, to)
}

func (d *demo) exec(ctx context.Context, database, statement string, args ...any) error {
	conn, err := pgx.Connect(ctx, d.cluster.URL(database))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement, args...)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("prepare the database: %w", err)
	}
	return nil
}

// The secrets that syncer simulate expects by default.
const (
	tencentKey   = "simulated-tencent-key"
	openIMSecret = "simulated-openim-secret"
)

// configText has places for the simulator's address and the intervals of both
// jobs. It is shown, so names are short and comments few.
const configText = `[database]
url_file = "database_url"
[log]
format = "console"            # for people; JSON is the default outside of a terminal
[http]
listen = "127.0.0.1:0"        # health checks; port 0 is any free one
[users]                       # your own table; it is only ever read
table      = "public.users"
key_column = "id"
user_id    = "im_id"
[sweep]
collapse_ratio = 1            # off: here hours go by between sweeps, and people with them

[[apps]]
name     = "tencent"
provider = "tencent"
[apps.tencent]
sdk_app_id      = 1400000000
identifier      = "administrator"
secret_key_file = "tencent_key"
base_url        = "%[1]s"

[[apps]]
name     = "openim"
provider = "openim"
[apps.openim]
base_url      = "%[1]s"
admin_user_id = "imAdmin"
secret_file   = "openim_secret"

[[jobs]]
name     = "presence"         # who is online, and on what
kind     = "presence"
schedule = "@every %[2]s"
[[jobs]]
name     = "accounts"         # who has been imported
kind     = "accounts"
schedule = "@every %[3]s"
`

// accountsEvery is the number of presence sweeps to one of accounts.
const accountsEvery = 4

// config returns the demo's configuration.
func (d *demo) config() string {
	return fmt.Sprintf(configText, d.simURL, d.interval, accountsEvery*d.interval)
}

// writeFiles writes files into the demo's folder: pairs of a name and a text.
func (d *demo) writeFiles(pairs ...string) error {
	for ; len(pairs) > 0; pairs = pairs[2:] {
		if err := os.WriteFile(filepath.Join(d.dir, pairs[0]), []byte(pairs[1]), 0o600); err != nil {
			return err
		}
	}
	return nil
}
