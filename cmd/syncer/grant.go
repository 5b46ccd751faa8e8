package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"syncer/repo"
)

func (p *program) grantReaderCommand() *cli.Command {
	return &cli.Command{
		Name:      "grant-reader",
		Usage:     "let a database role read what reports read, and nothing else",
		ArgsUsage: "ROLE",
		Description: "The role must exist; the configured one must own the schema. Do it again after an upgrade: what\n" +
			"it adds is not yet granted.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "print", Usage: "print the SQL instead of running it"},
		},
		Action: p.grantReader,
	}
}

func (p *program) grantReader(ctx context.Context, c *cli.Command) error {
	if c.Args().Len() != 1 {
		return usageError("give one role\nsee: %s --help", c.FullName())
	}
	role := c.Args().First()
	loaded, err := p.loadReporting(c)
	if err != nil {
		return err
	}
	if c.Bool("print") {
		fmt.Fprintln(p.stdout, strings.Join(repo.GrantReaderSQL(loaded.Database.Schema, role), ";\n")+";")
		return nil
	}
	store, err := openReader(ctx, loaded.Database, time.UTC)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.GrantReader(ctx, role); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "role %s may read schema %s\n", role, loaded.Database.Schema)
	return nil
}
