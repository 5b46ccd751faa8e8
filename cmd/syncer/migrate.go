package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"syncer/migrations"
)

func (p *program) migrateCommand() *cli.Command {
	sub := func(name, usage string, f func(context.Context, *cli.Command, *migrations.Migrator) error, flags ...cli.Flag) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage, Flags: append([]cli.Flag{configFlag()}, flags...),
			Action: func(ctx context.Context, c *cli.Command) error {
				if err := noArgs(c); err != nil {
					return err
				}
				return p.withMigrator(ctx, c, func(m *migrations.Migrator) error { return f(ctx, c, m) })
			},
		}
	}
	return &cli.Command{
		Name:        "migrate",
		Usage:       "upgrade syncer's schema, or revert it",
		Description: "Needs only [database] of the configuration, with the role that owns the schema.",
		Commands: []*cli.Command{
			sub("up", "apply all pending migrations; safe with several instances at once", p.migrateUp),
			sub("down", "revert the newest migration, with the data in its tables", p.migrateDown,
				&cli.Int64Flag{Name: "to", Value: -1, HideDefault: true, Usage: "revert all migrations after `VERSION`; 0: all"}),
			sub("status", "list the migrations", p.migrateStatus),
			sub("version", "print the newest applied migration", func(ctx context.Context, _ *cli.Command, m *migrations.Migrator) error {
				version, err := m.Version(ctx)
				if err != nil {
					return err
				}
				fmt.Fprintln(p.stdout, version)
				return nil
			}),
		},
	}
}

// lockWait is how long migrate up and down wait for their locks.
const lockWait = 10 * time.Minute

func (p *program) withMigrator(ctx context.Context, c *cli.Command, f func(*migrations.Migrator) error) error {
	loaded, err := p.loadReporting(c)
	if err != nil {
		return err
	}
	log := p.stderr.logger(loaded.Log, nil, p.stderr.w)
	openCtx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	m, err := migrations.Open(openCtx, migrations.Config{
		URL: loaded.Database.URL.Reveal(), Schema: loaded.Database.Schema, LockWait: lockWait,
		Log: slog.New(zerolog.NewSlogHandler(log.Level(max(log.GetLevel(), zerolog.WarnLevel)))),
	})
	if err != nil {
		return fmt.Errorf("database %s cannot be used: %w\n%s", loaded.Database.URL, err, databaseAdvice)
	}
	defer m.Close()
	return f(m)
}

func (p *program) migrateUp(ctx context.Context, _ *cli.Command, m *migrations.Migrator) error {
	done, err := m.Up(ctx)
	for _, s := range done {
		p.say("applied %s", s.Name)
	}
	if err == nil && len(done) == 0 {
		p.say("nothing to do: the schema is up to date")
	}
	return err
}

func (p *program) migrateDown(ctx context.Context, c *cli.Command, m *migrations.Migrator) error {
	target := c.Int64("to")
	if c.IsSet("to") && target < 0 {
		return usageError("--to wants a version, 0 or higher")
	}
	if !c.IsSet("to") {
		version, err := m.Version(ctx)
		if err != nil {
			return err
		}
		target = max(version-1, 0)
	}
	done, err := m.Down(ctx, target)
	for _, s := range done {
		p.say("reverted %s", s.Name)
	}
	if err == nil && len(done) == 0 {
		p.say("nothing to do: no later migration is applied")
	}
	return err
}

func (p *program) migrateStatus(ctx context.Context, _ *cli.Command, m *migrations.Migrator) error {
	statuses, err := m.Status(ctx)
	if err != nil {
		return err
	}
	t := newTable(p.stdout, "version", "migration", "applied")
	for _, s := range statuses {
		applied := "pending"
		if !s.AppliedAt.IsZero() {
			applied = s.AppliedAt.UTC().Format(time.DateTime) + " UTC"
		}
		t.AppendRow([]any{s.Version, s.Name, applied})
	}
	t.Render()
	return nil
}
