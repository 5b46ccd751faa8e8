package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/leash"
	"syncer/internal/dev/pgcluster"
)

// errStopped is what a signal makes of the demo.
var errStopped = errors.New("stopped; everything it had started is gone")

// demo is one showing. Make it with newDemo and run it once.
type demo struct {
	options
	screen *screen
	stderr io.Writer

	dir   string // holds the program, its configuration, secrets and logs
	leash *leash.Leash
	ends  []func() error // what cleanUp does, last first

	cluster     *pgcluster.Cluster
	databaseURL string
	db          *pgx.Conn
	weekDB      *pgx.Conn
	simulator   *leash.Process
	simURL      string
	daemon      *leash.Process
}

func newDemo(o options, stdout, stderr io.Writer) *demo {
	return &demo{options: o, screen: newScreen(stdout), stderr: stderr}
}

// atEnd puts something off to the clean-up.
func (d *demo) atEnd(do func() error) { d.ends = append(d.ends, do) }

// cleanUp takes back everything that was started, in the opposite order.
func (d *demo) cleanUp() error {
	var errs []error
	for _, do := range slices.Backward(d.ends) {
		errs = append(errs, do())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// run shows everything and cleans up, whatever happens in between.
func (d *demo) run(ctx context.Context) error {
	err := d.show(ctx)
	if err != nil && ctx.Err() != nil {
		err = errStopped // whatever the signal broke
	}
	if err := errors.Join(err, d.cleanUp()); err != nil {
		return err
	}
	d.farewell()
	return nil
}

// show is the demo, act by act.
func (d *demo) show(ctx context.Context) error {
	acts := []func(context.Context) error{
		d.prepare, d.simulate, d.configure, d.backfill, d.watch, d.results, d.week, d.reports, d.explore,
	}
	for _, act := range acts {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// prepare gets what the demo needs: the program, a server, a users table.
func (d *demo) prepare(ctx context.Context) error {
	if err := d.makeDir(); err != nil {
		return err
	}
	d.screen.heading("syncer: who is online, kept in Postgres")
	d.screen.say("This demo runs the real program against a throwaway Postgres server and a simulator of both "+
		"backends. It lives in %s, takes about two minutes, and leaves nothing behind but a page of reports; Ctrl-C stops it at any time.\n", d.dir)
	bin, err := pgcluster.FindOrInstall(ctx, d.stderr)
	if err != nil {
		return err
	}
	if err := d.screen.step("building the program", func() error { return d.build(ctx) }); err != nil {
		return err
	}
	server := fmt.Sprintf("starting Postgres %d", bin.Version)
	if err := d.screen.step(server, func() error { return d.startPostgres(ctx, bin) }); err != nil {
		return err
	}
	table := fmt.Sprintf("filling a users table with %s rows", thousands(int64(d.users)))
	return d.screen.step(table, func() error { return d.fillUsers(ctx) })
}

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

func (d *demo) startPostgres(ctx context.Context, bin pgcluster.Binaries) error {
	cluster, err := pgcluster.Start(ctx, pgcluster.Options{Binaries: bin})
	if err != nil {
		return err
	}
	d.cluster = cluster
	d.atEnd(cluster.Stop)
	admin, err := pgx.Connect(ctx, cluster.URL("postgres"))
	if err != nil {
		return err
	}
	_, err = admin.Exec(ctx, "CREATE DATABASE app")
	if err := errors.Join(err, admin.Close(ctx)); err != nil {
		return fmt.Errorf("make the demo's database: %w", err)
	}
	d.databaseURL = cluster.URL("app")
	if d.db, err = pgx.Connect(ctx, d.databaseURL); err != nil {
		return err
	}
	d.atEnd(func() error { return d.db.Close(context.WithoutCancel(ctx)) })
	return nil
}

const usersTableSQL = `
CREATE TABLE public.users (
    id        bigint PRIMARY KEY,
    im_id     text NOT NULL,
    signed_up timestamptz NOT NULL DEFAULT now()
)`

const signUpSQL = `
INSERT INTO public.users (id, im_id)
SELECT n, 'user-' || lpad(n::text, 6, '0')
FROM generate_series($1::bigint, $2::bigint) AS n`

func (d *demo) fillUsers(ctx context.Context) error {
	if _, err := d.db.Exec(ctx, usersTableSQL); err != nil {
		return fmt.Errorf("make the users table: %w", err)
	}
	return d.signUp(ctx, 1, d.users)
}

// signUp adds the users of these numbers.
func (d *demo) signUp(ctx context.Context, from, to int) error {
	if _, err := d.db.Exec(ctx, signUpSQL, from, to); err != nil {
		return fmt.Errorf("fill the users table: %w", err)
	}
	return nil
}

// speed makes an hour of the population's life of the time between two sweeps.
func (d *demo) speed() float64 { return float64(time.Hour / d.interval) }

// address finds where the simulator says that it serves.
var address = regexp.MustCompile(`http://\S+`)

// simulate starts the simulator.
func (d *demo) simulate(ctx context.Context) error {
	d.screen.heading("The backends")
	d.screen.say("A simulator answers as Tencent Chat and OpenIM do, limits and signatures included. Its people's "+
		"time is sped up: an hour of their day goes by between two sweeps, every %s.", seconds(d.interval))
	args := []string{"simulate", "--listen", "127.0.0.1:0", "--speed", fmt.Sprint(d.speed())}
	d.screen.prompt("syncer " + strings.Join(args, " ") + " &")
	var err error
	if d.simulator, err = d.startSyncer("simulator.log", args...); err != nil {
		return err
	}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if d.simURL = address.FindString(d.simulator.LastOutput()); d.simURL != "" {
			_, err := fmt.Fprintln(d.screen.out, d.simulator.LastOutput())
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.simulator.Gone:
			return d.simulator.Died()
		case <-poll.C:
		}
	}
}

// configure writes the configuration, makes the schema and checks both.
func (d *demo) configure(ctx context.Context) error {
	d.screen.heading("The configuration")
	d.screen.say("Where the users are, whom to ask about them, and when. Secrets have files of their own.")
	if err := d.writeConfig(); err != nil {
		return err
	}
	d.screen.prompt("cat config.toml")
	fmt.Fprint(d.screen.out, d.config())
	if err := d.mustRunSyncer(ctx, "migrate", "up"); err != nil {
		return err
	}
	return d.mustRunSyncer(ctx, "config", "check", "--connect")
}

// exitPartial is syncer's exit code for: done, but some users failed.
const exitPartial = 3

// backfill shows the one-shot mode.
func (d *demo) backfill(ctx context.Context) error {
	d.screen.heading("One-shot: backfill")
	d.screen.say("Asks about every user now, of both apps and both kinds at once: who is online (presence), and whom " +
		"the backend knows at all (accounts).")
	code, err := d.runSyncer(ctx, "backfill")
	switch {
	case err != nil:
		return err
	case code == exitPartial:
		d.screen.gap()
		d.screen.say("Exit code 3: done, but some users failed. Nobody has imported these users into Tencent Chat, " +
			"which therefore refuses to say whether they are online. OpenIM calls such users offline; there, only " +
			"the accounts sweep tells.")
		return nil
	case code != 0:
		return fmt.Errorf("syncer backfill ended with exit code %d", code)
	}
	return nil
}
