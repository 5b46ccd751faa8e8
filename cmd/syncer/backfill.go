package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"syncer/imclient"
	"syncer/internal/config"
	"syncer/jobs"
	"syncer/repo"
)

func (p *program) backfillCommand() *cli.Command {
	return &cli.Command{
		Name:  "backfill",
		Usage: "one-shot: sweep now, and exit when done",
		Description: "Sweeps every app and both kinds by default. Shows progress on stderr and prints a summary on stdout. " +
			"It waits for a running run of the same app and kind; scheduled ticks are skipped while it runs. " +
			"Ctrl-C stops after the pages in flight; --resume continues from there.\n" +
			"Exit codes: 0 done and complete, 1 failed or stopped, 2 wrong usage, 3 done, but some users failed." +
			examples("syncer backfill", "syncer backfill --app main --job presence", "syncer backfill --resume", "syncer backfill --users-file ids.txt --json > summary.json"),
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringSliceFlag{Name: "app", Usage: "only this `APP`; may be repeated"},
			choose("kind", runKinds, &cli.StringFlag{Name: "job", Usage: "only this `KIND`: presence or accounts"}),
			&cli.BoolFlag{Name: "resume", Usage: "continue the last backfill that was stopped, failed or killed, without repeating what is done"},
			&cli.StringFlag{Name: "users-file", Usage: "sweep only the user ids in `FILE`, one per line (- is standard input)"},
			&cli.BoolFlag{Name: "let-leave", Usage: "record the users missing from the users table as left, however many they are"},
			&cli.BoolFlag{Name: "trust-clock", Usage: "accept the database's clock although it is far ahead of all others; from then on run accepts it too"},
			&cli.BoolFlag{Name: "json", Usage: "print the summary as JSON"},
		},
		Action: p.runBackfill,
	}
}

// sweep is one run of the backfill.
type sweep struct {
	app    *jobs.App
	config config.App
	kind   imclient.Kind
	maxGap time.Duration
	listed []string
	run    repo.Run
	begun  bool // whether run is set
	err    error
	note   string
}

// name returns the sweep's name in messages.
func (s *sweep) name() string { return s.app.Name + " " + string(s.kind) }

func (p *program) runBackfill(ctx context.Context, c *cli.Command) error {
	if err := checkBackfillFlags(c); err != nil {
		return err
	}
	wanted, err := readUsersFile(c.String("users-file"))
	if err != nil {
		return err
	}
	loaded, err := p.load(c)
	if err != nil {
		return err
	}
	if err := knownApps(loaded, c.StringSlice("app")); err != nil {
		return err
	}
	display := newDisplay(p.stderr)
	log := p.stderr.logger(loaded.Log, loaded.Warnings, display.logWriter())
	if log.GetLevel() == zerolog.InfoLevel {
		// Progress and summary show what the log would say of successful runs.
		log = log.Level(zerolog.WarnLevel)
	}
	s, err := open(ctx, loaded, log, c.Bool("trust-clock"))
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.store.CheckClock(ctx); err != nil {
		return err
	}
	sweeps, apps := s.selected(c.StringSlice("app"), c.String("job"))
	for _, app := range apps {
		if err := app.Users.Check(ctx); err != nil {
			return fmt.Errorf("app %s: %w", app.Name, err)
		}
	}
	engine, err := s.engine(apps)
	if err != nil {
		return err
	}
	how := jobs.Backfill{Resume: c.Bool("resume"), LetLeave: c.Bool("let-leave"), ListedAt: s.store.Now()}
	if wanted != nil {
		if sweeps, err = matchListed(ctx, engine, sweeps, wanted); err != nil {
			return err
		}
	}
	if err := s.backfill(ctx, engine, sweeps, how, display); err != nil {
		return err
	}
	return p.report(s, sweeps, c.Bool("json"), resumeCommand(c))
}

// backfill runs the sweeps and closes the runs that did not end.
func (s *system) backfill(ctx context.Context, engine *jobs.Engine, sweeps []*sweep, how jobs.Backfill, display *display) error {
	if err := engine.Start(ctx); err != nil {
		return err
	}
	display.start(ctx, sweeps)
	backfillAll(ctx, engine, sweeps, how, display)
	// After a stop or a failure, pages are in flight and runs are open.
	if err := stopEngine(engine, s.config.Sweep); err != nil {
		s.log.Warn().Err(err).Msg("did not stop in time; nothing that was written is lost")
	}
	closeOpen(ctx, s, engine, sweeps)
	display.stop()
	return nil
}

// checkBackfillFlags returns an error for flags that contradict each other.
func checkBackfillFlags(c *cli.Command) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if c.Bool("resume") && c.IsSet("users-file") {
		return usageError("--resume continues with the users of the stopped backfill: leave --users-file out")
	}
	if c.Bool("let-leave") && c.IsSet("users-file") {
		return usageError("--let-leave needs a sweep of the whole users table, which shows who is missing: leave --users-file out")
	}
	if c.Bool("let-leave") && c.Bool("resume") {
		return usageError("--let-leave starts a new backfill: leave --resume out (a backfill that was started with --let-leave keeps it when it is resumed)")
	}
	return nil
}

// resumeCommand returns the command that continues a backfill: its own with --resume. A
// list of users is recorded with the run.
func resumeCommand(c *cli.Command) string {
	command := "syncer backfill --resume"
	if c.IsSet("config") {
		command += " --config " + shellWord(c.String("config"))
	}
	for _, app := range c.StringSlice("app") {
		command += " --app " + shellWord(app)
	}
	if c.IsSet("job") {
		command += " --job " + shellWord(c.String("job"))
	}
	return command
}

var plainWord = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// shellWord quotes a word for a POSIX shell if necessary.
func shellWord(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// knownApps returns an error for names that are not configured.
func knownApps(c *config.Config, names []string) error {
	var all []string
	for _, app := range c.Apps {
		all = append(all, app.Name)
	}
	for _, name := range names {
		if !slices.Contains(all, name) {
			return usageError("--app %s: no such app in the configuration (allowed: %s)", name, strings.Join(all, ", "))
		}
	}
	return nil
}

// selected returns the requested sweeps and their apps.
func (s *system) selected(names []string, kind string) (sweeps []*sweep, apps []*jobs.App) {
	for i, app := range s.apps {
		if len(names) > 0 && !slices.Contains(names, app.Name) {
			continue
		}
		apps = append(apps, app)
		for _, k := range imclient.Kinds() {
			if kind == "" || kind == string(k) {
				sweeps = append(sweeps, &sweep{app: app, config: s.config.Apps[i], kind: k, maxGap: maxGap(s.config, app.Name, k)})
			}
		}
	}
	return sweeps, apps
}

// maxGap returns the longest time between a backfill and the next run that counts as
// observed: that of the app's most frequent job, 0 without a job.
func maxGap(c *config.Config, app string, kind imclient.Kind) time.Duration {
	var shortest time.Duration
	for _, job := range c.Jobs {
		if job.Kind == kind && (job.App == "" || job.App == app) && (shortest == 0 || job.MaxGap < shortest) {
			shortest = job.MaxGap
		}
	}
	return shortest
}

// backfillAll runs all sweeps at once, because each has its own quota. how has what they
// share.
func backfillAll(ctx context.Context, engine *jobs.Engine, sweeps []*sweep, how jobs.Backfill, display *display) {
	var all sync.WaitGroup
	for _, s := range sweeps {
		all.Go(func() {
			s.err = s.backfill(ctx, engine, how, display)
			display.done(s)
		})
	}
	all.Wait()
}

func (s *sweep) backfill(ctx context.Context, engine *jobs.Engine, how jobs.Backfill, display *display) error {
	how.AppID, how.Kind, how.Listed, how.MaxGap = s.app.ID, s.kind, s.listed, s.maxGap
	how.Waiting = func(other repo.Run) { display.waiting(s, other) }
	run, err := engine.StartBackfill(ctx, how)
	if err != nil {
		return err
	}
	s.run, s.begun = run, true
	if how.Resume && run.Status != repo.RunRunning && run.FinishedAt != nil && (run.Status == repo.RunSucceeded || run.Status == repo.RunPartial) {
		s.note = "had gone through already"
		return nil
	}
	s.run, err = engine.WaitRun(ctx, run, func(now repo.Run) { display.progress(s, now) })
	return err
}

// closeOpen cancels the runs that are open after the engine stopped, so that --resume finds
// them, and reads their final status: some succeeded with the last pages in flight.
func closeOpen(ctx context.Context, s *system, engine *jobs.Engine, sweeps []*sweep) {
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
	defer cancel()
	for _, sw := range sweeps {
		if !sw.begun || sw.run.Status != repo.RunRunning || errors.Is(sw.err, jobs.ErrRunLost) {
			continue
		}
		reason := "stopped by the operator"
		if sw.err != nil && !errors.Is(sw.err, context.Canceled) {
			reason = sw.err.Error()
		}
		err := engine.Cancel(closeCtx, sw.run, reason)
		if err == nil {
			sw.run, err = s.store.FindRun(closeCtx, sw.run.ID)
		}
		if err != nil {
			s.log.Warn().Err(err).Msg("could not close the run; it stays open, and --resume continues it")
		}
	}
}
