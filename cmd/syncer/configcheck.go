package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"syncer/imclient"
	"syncer/internal/config"
	"syncer/internal/pg"
	"syncer/internal/schedule"
	"syncer/migrations"
	"syncer/repo"
	"syncer/repo/userstable"
)

func (p *program) configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "check or print the configuration",
		Commands: []*cli.Command{{
			Name:  "check",
			Usage: "validate the configuration; with --connect also connect to databases and APIs",
			Flags: []cli.Flag{
				configFlag(),
				&cli.BoolFlag{Name: "connect", Usage: "also connect: schema, users tables and a sample of their ids, one harmless call to each API"},
			},
			Action: p.checkConfig,
		}, {
			Name:        "print",
			Usage:       "print every setting, its value and source; secrets are masked",
			Description: "The output is TOML. Each value is followed by its source: file and line, environment variable,\nor default.",
			Flags:       []cli.Flag{configFlag()},
			Action:      p.printConfig,
		}},
	}
}

func (p *program) checkConfig(ctx context.Context, c *cli.Command) error {
	if err := noArgs(c); err != nil {
		return err
	}
	loaded, err := p.load(c)
	if err != nil {
		return err
	}
	if err := p.describe(loaded); err != nil {
		return err
	}
	if !c.Bool("connect") {
		return nil
	}
	check := checker{p: p, config: loaded}
	check.database(ctx)
	for _, app := range loaded.Apps {
		check.app(ctx, app)
	}
	check.traces(ctx)
	if check.failed {
		return &exitError{code: exitFailed, err: errors.New("not everything could be reached")}
	}
	return nil
}

func (p *program) printConfig(_ context.Context, c *cli.Command) error {
	if err := noArgs(c); err != nil {
		return err
	}
	path, err := config.Find(c.String("config"))
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	return configError(config.Print(p.stdout, path, p.environ))
}

// describe prints a summary of the configuration.
func (p *program) describe(c *config.Config) error {
	p.say("the configuration is valid\ndatabase %s, schema %s", c.Database.URL, c.Database.Schema)
	unverified := c.Database.URL.Unverified()
	for _, app := range c.Apps {
		unverified = append(unverified, app.Users.URL.Unverified()...)
	}
	slices.Sort(unverified)
	for _, host := range slices.Compact(unverified) {
		p.say("database server %s: its certificate is not checked (sslmode=verify-full does)", host)
	}
	for _, app := range c.Apps {
		p.say("app %s (%s): users from %s", app.Name, app.Provider, usersTable(app.Users))
		if app.Proxy != "" {
			p.say("app %s: calls go through the proxy %s", app.Name, app.Proxy)
		}
		if c := app.Connection(); c.AllowHTTP && strings.HasPrefix(c.BaseURL, "http:") {
			p.say("app %s: calls to %s are not encrypted (allow_http)", app.Name, c.BaseURL)
		}
	}
	for _, job := range c.Jobs {
		ticks, err := schedule.Parse(job.Schedule, job.Timezone)
		if err != nil {
			return err
		}
		apps := job.App
		if apps == "" {
			apps = "every app"
		}
		p.say("job %s: %s of %s, %s, next at %s", job.Name, job.Kind, apps, job.Schedule,
			ticks.Next(time.Now()).In(job.Timezone).Format("2006-01-02 15:04:05 MST"))
	}
	p.describeHooks(c)
	if t := c.Traces; t.Endpoint != "" {
		p.say("traces of %.4g of the runs to %s", t.Sample, t.Endpoint)
		if t.Proxy != "" {
			p.say("traces: sent through the proxy %s", t.Proxy)
		}
		if t.AllowHTTP && strings.HasPrefix(t.Endpoint, "http:") {
			p.say("traces: sent unencrypted (allow_http)")
		}
	}
	for _, warning := range c.Warnings {
		p.say("warning: %s", warning)
	}
	return nil
}

// checker connects to everything in turn and prints the results.
type checker struct {
	p      *program
	config *config.Config
	failed bool
}

// warn prints what works, but probably not as intended.
func (ch *checker) warn(format string, args ...any) { ch.p.say("WARNING "+format, args...) }

// say prints the result of one check. advice is what to do about err, "" if err says so.
func (ch *checker) say(what string, err error, advice string) {
	if err == nil {
		ch.p.say("ok      %s", what)
		return
	}
	ch.failed = true
	text := err.Error()
	if advice != "" {
		text += "\n" + advice
	}
	lines := strings.Split(distinctLines(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	ch.p.say("FAILED  %s: %s", what, paragraph(strings.Join(lines, "\n        ")))
}

func (ch *checker) database(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	db := ch.config.Database
	store, err := repo.Open(ctx, pg.Config{URL: db.URL.Reveal(), Schema: db.Schema, MaxConns: 2, PollOnly: db.PollOnly, Process: processName()})
	if err == nil {
		defer store.Close()
		err = store.CheckSchema(ctx, migrations.Latest())
	}
	advice := databaseAdvice
	if errors.Is(err, repo.ErrNoSchema) || errors.Is(err, pg.ErrDevelopmentSchema) {
		advice = ""
	}
	ch.say(fmt.Sprintf("database %s, schema %s", db.URL, db.Schema), err, advice)
	if err != nil {
		return
	}
	if err := store.CheckSalt(ctx, repo.Salt(ch.config.History.ErasureSalt.Reveal())); err != nil {
		ch.say("erasures", err, "")
	}
	for _, app := range ch.config.Apps {
		if err := store.CheckApp(ctx, app.Name, app.Provider, app.Tenant()); err != nil {
			ch.say("app "+app.Name, err, "")
		}
	}
}

func (ch *checker) app(ctx context.Context, app config.App) {
	ch.users(ctx, app)
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	// One call outside the shared quota.
	noGate := func(imclient.Kind, int) *imclient.Gate { return nil }
	client, err := newClient(app, zerolog.Nop(), imclient.HTTPConfig{}, noGate)
	if err == nil {
		defer client.Close()
		err = client.Ping(ctx)
	}
	advice := ""
	if err != nil && imclient.ClassOf(err) == imclient.ClassTransient {
		advice = fmt.Sprintf("check base_url in [apps.%s], and that it runs and is reachable from here", app.Provider)
		if app.Connection().BaseURL == "" {
			advice = fmt.Sprintf("check region in [apps.%s], and that this machine reaches the internet", app.Provider)
		}
		if app.Proxy != "" {
			advice += "; and check proxy: all calls of this app go through it"
		}
	}
	ch.say(fmt.Sprintf("app %s: %s API", app.Name, app.Provider), err, advice)
}

func (ch *checker) users(ctx context.Context, app config.App) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	s := &system{config: ch.config}
	defer s.users.Close()
	users, err := s.openUsers(ctx, app.Users)
	var page userstable.Page
	if err == nil {
		page, err = users.Sample(ctx, sampledUsers)
	}
	var size string
	if err == nil {
		size, err = usersSize(ctx, users)
	}
	if err == nil {
		ch.sample(app, size, sampleUsers(app.Provider, page))
		return
	}
	advice := ""
	if _, ok := errors.AsType[*userstable.Error](err); !ok {
		advice = "check [users] url (or [database] url, where there is none), and that the server runs and is reachable from here"
	}
	ch.say("app "+app.Name, err, advice) // the error names the table
}

// usersTable returns the name of a users table as it is configured.
func usersTable(c config.Users) string {
	if c.Table.Schema == "" {
		return c.Table.Name
	}
	return c.Table.Schema + "." + c.Table.Name
}
