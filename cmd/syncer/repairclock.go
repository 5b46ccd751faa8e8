package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"syncer/repo"
)

func (p *program) repairClockCommand() *cli.Command {
	return &cli.Command{
		Name:  "repair-clock",
		Usage: "remove what was recorded while the database's clock was ahead",
		Description: "After the clock is corrected, syncer queries nothing until it reaches the newest recorded time. This command " +
			"removes what is dated after the present and restores the values from before, as if nothing had been " +
			"observed while the clock was wrong. Without --yes it only shows what it would do. The configured role " +
			"must own the schema, and this machine's clock must be right. First stop run and backfill everywhere." +
			examples("syncer repair-clock", "syncer repair-clock --yes"),
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "yes", Usage: "do it"},
		},
		Action: p.repairClock,
	}
}

func (p *program) repairClock(ctx context.Context, c *cli.Command) error {
	if err := noArgs(c); err != nil {
		return err
	}
	loaded, err := p.loadReporting(c)
	if err != nil {
		return err
	}
	store, err := openReader(ctx, loaded.Database, time.UTC)
	if err != nil {
		return err
	}
	defer store.Close()
	repair, err := store.RepairClock(ctx, c.Bool("yes"))
	if errors.Is(err, repo.ErrNothingToRepair) {
		fmt.Fprintln(p.stdout, "nothing to do: nothing recorded is dated after the present")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "the present is        %s\nthe newest record is  %s\n", repair.At.UTC().Format(time.DateTime+" UTC"), repair.Newest.UTC().Format(time.DateTime+" UTC"))
	t := newTable(p.stdout, "what", "count")
	t.AppendRow([]any{"runs removed or cancelled", repair.Runs})
	t.AppendRow([]any{"rows of the histories removed", repair.Rows})
	t.AppendRow([]any{"values restored", repair.Restored})
	t.AppendRow([]any{"values forgotten", repair.Forgotten})
	t.AppendRow([]any{"partitions dropped", repair.Partitions})
	t.Render()
	if len(repair.Connected) > 0 {
		fmt.Fprintf(p.stdout, "still connected: %s\n", strings.Join(repair.Connected, ", "))
	}
	if c.Bool("yes") {
		fmt.Fprintln(p.stdout, "done; start run again, and restart processes that ran meanwhile")
		return nil
	}
	fmt.Fprintln(p.stdout, "nothing was changed: stop run and backfill everywhere, make a backup, then run this with --yes")
	return nil
}
