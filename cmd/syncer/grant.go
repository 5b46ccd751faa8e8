package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v3"

	"syncer/repo"
)

func (p *program) grantReaderCommand() *cli.Command {
	tune := &cli.BoolFlag{Name: "tune", Usage: "also set jit = off and work_mem = '64MB' for the role's sessions in this database, which queries of the views need to be fast"}
	return grantCommand("grant-reader", "grant a database role what reports need, and nothing else", func(ctx context.Context, c *cli.Command) error {
		return p.grant(ctx, c, "read", repo.GrantReaderSQL, (*repo.Store).GrantReader)
	}, tune)
}

func (p *program) grantWorkerCommand() *cli.Command {
	return grantCommand("grant-worker", "grant a database role what run and backfill need, and nothing else", func(ctx context.Context, c *cli.Command) error {
		return p.grant(ctx, c, "work in", repo.GrantWorkerSQL, (*repo.Store).GrantWorker)
	})
}

func grantCommand(name, usage string, action cli.ActionFunc, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name:      name,
		Usage:     usage,
		ArgsUsage: "ROLE",
		Description: "The role must exist; the configured one must own the schema. Repeat this after an upgrade, which may " +
			"add tables.",
		Flags: append([]cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "print", Usage: "print the SQL instead of running it"},
		}, flags...),
		Action: action,
	}
}

// grant grants a role its privileges; do describes them.
func (p *program) grant(ctx context.Context, c *cli.Command, do string,
	statements func(schema, role string) []string, grant func(s *repo.Store, ctx context.Context, role string) error,
) error {
	if c.Args().Len() != 1 {
		return usageError("give one role\nsee: %s --help", c.FullName())
	}
	role := c.Args().First()
	loaded, err := p.loadReporting(c)
	if err != nil {
		return err
	}
	if c.Bool("print") {
		all := statements(loaded.Database.Schema, role)
		if c.Bool("tune") {
			database, err := pgx.ParseConfig(loaded.Database.URL.Reveal())
			if err != nil {
				return err
			}
			all = append(all, repo.TuneReaderSQL(database.Database, role)...)
		}
		fmt.Fprintln(p.stdout, strings.Join(all, ";\n")+";")
		return nil
	}
	store, err := openReader(ctx, loaded.Database, time.UTC)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := grant(store, ctx, role); err != nil {
		return err
	}
	p.say("role %s may %s schema %s", role, do, loaded.Database.Schema)
	if c.Bool("tune") {
		set, err := store.TuneReader(ctx, role)
		if err != nil {
			return err
		}
		p.say("for its next sessions: %s", strings.Join(set, "; "))
	}
	return nil
}
