package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"syncer/internal/build"
)

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version of the program",
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArgs(c); err != nil {
				return err
			}
			fmt.Fprintf(p.stdout, "syncer version %s\n", build.Read())
			return nil
		},
	}
}
