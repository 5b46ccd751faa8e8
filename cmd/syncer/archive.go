package main

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"syncer/internal/archive"
	"syncer/internal/pg"
	"syncer/internal/report"
)

func (p *program) archiveCommand() *cli.Command {
	return &cli.Command{
		Name:  "archive",
		Usage: "write closed months of the histories to Parquet files",
		Description: "Writes each month that has ended and is not archived yet, with its runs and gaps, to a folder ([history] archive, or --dir): one " +
			"file per table, app and month, read back and compared before it counts. With [history] archive the daemon " +
			"does that every hour, and retention drops only what is archived. docs/archive.md describes the files, and asks them " +
			"questions with DuckDB." +
			examples("syncer archive", "syncer archive --again", "syncer archive --dir /var/lib/syncer/archive"),
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "dir", Usage: "archive in this `FOLDER`, which must exist (default: [history] archive)"},
			&cli.BoolFlag{Name: "again", Usage: "compare all archived months with the database and their files with what is recorded, and write anew what differs"},
		},
		Action: func(ctx context.Context, c *cli.Command) error { return stopped(ctx, p.archive(ctx, c)) },
	}
}

func (p *program) archive(ctx context.Context, c *cli.Command) error {
	if err := noArgs(c); err != nil {
		return err
	}
	loaded, err := p.load(c)
	if err != nil {
		return err
	}
	folder := loaded.History.Archive
	if c.IsSet("dir") {
		folder = c.String("dir")
	}
	if folder == "" {
		return usageError("give a folder: [history] archive, or --dir")
	}
	store, err := openTool(ctx, loaded.Database, pg.Config{MaxConns: 2, Process: processName(), Location: time.UTC})
	if err != nil {
		return err
	}
	defer store.Close()
	result, err := archive.New(store, folder, zerolog.Nop()).Run(ctx, archive.Options{Again: c.Bool("again")})
	if len(result.Written) > 0 {
		t := newTable(p.stdout, "table", "app", "month", "rows", "bytes")
		for _, w := range result.Written {
			t.AppendRow([]any{string(w.Relation), w.App, w.Month.Format("2006-01"), report.Count(w.Rows), report.Count(w.Bytes)})
		}
		t.Render()
	}
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if len(result.Written) == 0 {
		p.say("nothing to do: all that ended before %s is archived", result.Until.Format(time.DateOnly))
	}
	return nil
}
