package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"syncer/internal/dev/leash"
	"syncer/internal/dev/pgcluster"
)

// errStopped is the error of a demo that a signal ended.
var errStopped = errors.New("stopped; everything it had started is gone")

// demo is one showing.
type demo struct {
	options
	screen *screen
	stderr io.Writer

	dir   string // holds the program, its configuration, secrets and logs
	leash *leash.Leash
	ends  []func() error // the steps of cleanUp, last first

	cluster   *pgcluster.Cluster
	simulator *leash.Process
	simURL    string
	daemon    *leash.Process
	health    string // address of the daemon's HTTP server
	unread    []byte // of the daemon's log: the beginning of a line
	lastRun   string // id of the last presence run
}

// atEnd adds a step to the clean-up.
func (d *demo) atEnd(do func() error) { d.ends = append(d.ends, do) }

// cleanUp ends everything that was started, in the opposite order.
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

// run shows everything and then cleans up in any case.
func (d *demo) run(ctx context.Context) error {
	err := d.show(ctx)
	if err != nil && ctx.Err() != nil {
		err = errStopped
	}
	if err := errors.Join(err, d.cleanUp()); err != nil {
		return err
	}
	more := " To explore it yourself: make demo-keep."
	if d.keep {
		more = ""
	}
	d.screen.say("Everything is stopped and removed.%s To set it up for your own users: README.md.", more)
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
		"providers. It lives in %s, takes about two minutes, and leaves only a page of reports behind. Ctrl-C stops it at any time.", d.dir)
	bin, err := pgcluster.FindOrInstall(ctx, d.stderr)
	if err != nil {
		return err
	}
	if err := d.screen.step("building the program", func() error { return d.build(ctx) }); err != nil {
		return err
	}
	server := fmt.Sprintf("starting Postgres %d with %d users", bin.Version, d.users)
	return d.screen.step(server, func() error { return d.startPostgres(ctx, bin) })
}

// address matches where the simulator serves.
var address = regexp.MustCompile(`http://\S+`)

// simulate starts the simulator. An hour of the population's life passes between
// two sweeps.
func (d *demo) simulate(ctx context.Context) error {
	d.screen.heading("The providers")
	d.screen.say("A simulator answers as Tencent Chat and OpenIM do, limits and signatures included. Its time is sped up: an hour "+
		"of its people's day passes between two sweeps, every %s.", d.interval)
	var err error
	d.simulator, err = d.start("simulator.log", "simulate", "--listen", "127.0.0.1:0", "--speed", fmt.Sprint(float64(time.Hour/d.interval)))
	if err != nil {
		return err
	}
	if d.simURL, err = d.simulator.AwaitOutput(ctx, address); err != nil {
		return err
	}
	fmt.Fprintln(d.screen.out, d.simulator.LastOutput())
	return nil
}

// configure writes the configuration, makes the schema and checks both.
func (d *demo) configure(ctx context.Context) error {
	d.screen.heading("The configuration")
	d.screen.say("It says where the users are, which provider knows about them, and when to ask. Secrets have files of their own.")
	err := d.writeFiles("config.toml", d.config(), "database_url", d.cluster.URL("app"), "tencent_key", tencentKey, "openim_secret", openIMSecret)
	if err != nil {
		return err
	}
	d.screen.prompt("cat config.toml")
	fmt.Fprint(d.screen.out, d.config())
	if err := d.command(ctx, "migrate", "up"); err != nil {
		return err
	}
	return d.command(ctx, "config", "check", "--connect")
}

// backfill shows the one-shot mode.
func (d *demo) backfill(ctx context.Context) error {
	d.screen.heading("One-shot: backfill")
	d.screen.say("Asks about every user now, of both apps and both kinds at once: who is online (presence), and which users " +
		"the provider knows at all (accounts).")
	if err := d.command(ctx, "backfill"); err != nil {
		return err
	}
	d.screen.say("Exit code 3 means: done, but some users failed. They have not been imported into Tencent Chat, which " +
		"therefore refuses to say whether they are online. OpenIM calls such users offline; there, only the accounts sweep tells them apart.")
	return nil
}

var (
	// serving matches the daemon's log line about its HTTP server.
	serving = regexp.MustCompile(`address=(\S+)`)
	// closed matches the one about a presence run that has ended.
	closed = regexp.MustCompile(`run closed.* app=(\w+) .*job=presence .*run_id=(\d+) .*status=(\w+)`)
)

// startPatience is how long the first sweeps may take beyond their intervals.
const startPatience = time.Minute

// watch runs the daemon and shows its log until the sweeps are done.
func (d *demo) watch(ctx context.Context) error {
	d.screen.heading("The daemon: run")
	d.screen.say("Sweeps on schedule from now on; only what changed is written.")
	var err error
	if d.daemon, err = d.start("daemon.log", "run"); err != nil {
		return err
	}
	if d.health, err = d.daemon.AwaitOutput(ctx, serving); err != nil {
		return err
	}
	d.screen.prompt("tail -f daemon.log")
	if err := d.follow(ctx); err != nil {
		return err
	}
	if d.keep {
		return nil
	}
	d.screen.prompt("kill %2")
	if err := d.daemon.Stop(); err != nil {
		return fmt.Errorf("%w\n%s", err, d.daemon.LastOutput())
	}
	d.screen.say("The daemon has finished the pages in flight and ended with exit code 0.")
	return nil
}

// follow prints the daemon's log until both apps have had their sweeps. After half
// of them new users sign up.
func (d *demo) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(d.sweeps)*d.interval+startPatience)
	defer cancel()
	log, err := os.Open(d.daemon.Output)
	if err != nil {
		return err
	}
	defer log.Close()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	sweeps := map[string]int{}
	for signedUp := false; min(sweeps["tencent"], sweeps["openim"]) < d.sweeps; {
		if err := d.showLog(log, sweeps); err != nil {
			return err
		}
		if !signedUp && sweeps["tencent"] >= d.sweeps/2 {
			signedUp = true
			newcomers := d.users / 80
			if err := d.signUp(ctx, d.users+1, d.users+newcomers); err != nil {
				return err
			}
			fmt.Fprintf(d.screen.out, "         (%d people sign up: they are in the users table now)\n", newcomers)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the daemon is too slow: %v of %d sweeps were done in time\n%s", sweeps, d.sweeps, d.daemon.LastOutput())
		case <-d.daemon.Gone:
			return d.daemon.Died()
		case <-d.simulator.Gone:
			return d.simulator.Died()
		case <-poll.C:
		}
	}
	return nil
}

// showLog prints what is new in the log, and counts the sweeps of each app.
func (d *demo) showLog(log io.Reader, sweeps map[string]int) error {
	text, err := io.ReadAll(log)
	if err != nil {
		return err
	}
	d.unread = append(d.unread, text...)
	whole := bytes.LastIndexByte(d.unread, '\n') + 1
	for line := range strings.Lines(string(d.unread[:whole])) {
		fmt.Fprint(d.screen.out, line)
		if found := closed.FindStringSubmatch(line); found != nil {
			if found[3] == "failed" {
				return fmt.Errorf("a sweep failed: %s", line)
			}
			sweeps[found[1]]++
			d.lastRun = found[2]
		}
	}
	d.unread = d.unread[whole:]
	return nil
}

// someUser matches a user's id in a report.
var someUser = regexp.MustCompile(`user-\d+`)

// results shows what is in the database now.
func (d *demo) results(ctx context.Context) error {
	d.screen.heading("What is known now")
	for _, args := range [][]string{
		{"runs", "--limit", "12"}, {"runs", "show", d.lastRun}, {"report", "platforms", "--from", "-1h"},
		{"report", "accounts"}, {"report", "sessions", "--from", "-1h"},
	} {
		if err := d.command(ctx, args...); err != nil {
			return err
		}
	}
	sessions, err := d.leash.Command(ctx, d.syncer(), "report", "sessions", "--from", "-1h", "--app", "tencent", "--users", "--format", "csv").Output()
	if err != nil {
		return fmt.Errorf("choose a user: %w", err)
	}
	d.screen.heading("One user's story")
	d.screen.say("Polling sees samples, not events. So each change lies between two moments.")
	return d.command(ctx, "explain", cmp.Or(someUser.FindString(string(sessions)), "user-000001"), "--app", "tencent")
}

// explore leaves everything running until a signal, if that is wanted, and prints
// what can be tried.
func (d *demo) explore(ctx context.Context) error {
	if !d.keep {
		return nil
	}
	d.screen.heading("Your turn")
	d.screen.say("Simulator, daemon and Postgres run until Ctrl-C. In another terminal:")
	fmt.Fprintf(d.screen.out, `
  cd %s
  ls                                   # config.toml, secrets, daemon.log
  ./syncer backfill --app openim       # sweep now; the daemon's ticks wait meanwhile
  ./syncer explain user-000042
  ./syncer --help
  tail -f daemon.log

  psql "$(cat database_url)"           # the address holds a throwaway password
    SELECT state, count(*) FROM syncer.presence_snapshot GROUP BY state;
    SELECT * FROM syncer.presence_history WHERE user_id = 'user-000042';
    SELECT * FROM syncer.user_failure LIMIT 5;

  curl http://%s/readyz
  curl %s/_sim/users -d '{"user_id":"user-000042"}'    # now offline
  curl %s/_sim/stats
`, d.dir, d.health, d.simURL, d.simURL)
	select {
	case <-ctx.Done():
		return nil
	case <-d.daemon.Gone:
		return d.daemon.Died()
	case <-d.simulator.Gone:
		return d.simulator.Died()
	}
}

// exitPartial is syncer's exit code for: done, but something is wrong with some
// users.
const exitPartial = 3

// command shows a command of syncer and runs it to its end.
func (d *demo) command(ctx context.Context, args ...string) error {
	d.screen.prompt("syncer " + strings.Join(args, " "))
	cmd := d.leash.Command(ctx, d.syncer(), args...)
	cmd.Stdout, cmd.Stderr = d.screen.out, d.stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == exitPartial && ctx.Err() == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("syncer %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// start shows a command of syncer and starts it in the background, with its output
// in a file of the demo's folder. The clean-up stops it.
func (d *demo) start(output string, args ...string) (*leash.Process, error) {
	d.screen.prompt("syncer " + strings.Join(args, " ") + " >" + output + " 2>&1 &")
	p, err := d.leash.Start(output, d.syncer(), args...)
	if err == nil {
		d.atEnd(p.Stop)
	}
	return p, err
}
