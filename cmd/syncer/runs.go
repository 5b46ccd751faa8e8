package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"syncer/imclient"
	"syncer/internal/config"
	"syncer/internal/report"
	"syncer/repo"
	"syncer/repo/reports"
)

// runStatuses lists the values of --status.
var runStatuses = []string{
	string(repo.RunRunning), string(repo.RunSucceeded), string(repo.RunPartial), string(repo.RunFailed), string(repo.RunCancelled), string(repo.RunSkipped),
}

// runKinds are the names of what a run can be of.
var runKinds = []string{string(imclient.KindPresence), string(imclient.KindAccounts)}

// maxRuns limits --limit. For more, use syncer report runs, or the table.
const maxRuns = 10_000

func (p *program) runsCommand() *cli.Command {
	return &cli.Command{
		Name:  "runs",
		Usage: "list the latest runs; show prints one in detail",
		Description: "Needs only [database] of the configuration, and a role that may read (syncer grant-reader). " +
			"Columns of csv and keys of JSON: " +
			"app, run_id, kind, job, trigger, tick, status, started_at, finished_at, seconds, users, changed, failed, " +
			"removed, held_back, suspect_pages, rejected_answers, calls, retries, error.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "app", Local: true, Usage: "only this `APP`"},
			&cli.StringFlag{Name: "job", Local: true, Usage: "only the job with this `NAME` (backfill for backfills)"},
			choose("kind", runKinds, &cli.StringFlag{Name: "kind", Local: true, Usage: "only this `KIND`: presence or accounts"}),
			&cli.StringFlag{Name: "status", Local: true, Usage: "only this `STATUS`, or several separated by commas: " + strings.Join(runStatuses, ", "), Validator: checkStatuses},
			&cli.IntFlag{Name: "limit", Local: true, Value: 20, Usage: "list the newest `N`", Validator: func(n int) error {
				if n < 1 || n > maxRuns {
					return fmt.Errorf("%d is not between 1 and %d", n, maxRuns)
				}
				return nil
			}},
			zoneFlag(),
			formatFlag("table", "csv", "json"),
			spreadsheetFlag(),
		},
		Action: func(ctx context.Context, c *cli.Command) error { return stopped(ctx, p.listRuns(ctx, c)) },
		Commands: []*cli.Command{{
			Name:      "show",
			Usage:     "print one run in detail",
			ArgsUsage: "ID",
			Description: "Keys of JSON: run (as in runs, and provider, listed, complete, prev_complete_at, observed_from, " +
				"observed_until, suspect, planned), and the lists seen, left, gaps, range_states, ranges, failures.",
			Flags:  []cli.Flag{configFlag(), zoneFlag(), formatFlag("table", "json")},
			Action: func(ctx context.Context, c *cli.Command) error { return stopped(ctx, p.showRun(ctx, c)) },
		}},
	}
}

func zoneFlag() cli.Flag {
	return &cli.StringFlag{Name: "tz", Usage: "show times in time zone `ZONE`, such as Europe/Berlin (default: [report] timezone)",
		Validator: func(s string) error { _, err := config.Location(s); return err }}
}

// formatFlag returns --format; the first format is the default.
func formatFlag(formats ...string) cli.Flag {
	return choose("format", formats, &cli.StringFlag{Name: "format", Local: true, Value: formats[0], Usage: "print as `FORMAT`: " + strings.Join(formats, ", ")})
}

// oneOf returns a flag's validator.
func oneOf(what string, allowed ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(allowed, s) {
			return fmt.Errorf("unknown %s %q (allowed: %s)", what, s, strings.Join(allowed, ", "))
		}
		return nil
	}
}

func checkStatuses(list string) error {
	for status := range strings.SplitSeq(list, ",") {
		if err := oneOf("status", runStatuses...)(status); err != nil {
			return err
		}
	}
	return nil
}

// zoneOf returns the zone of --tz, or the configured one.
func zoneOf(c *cli.Command, configured config.Report) (*time.Location, error) {
	if !c.IsSet("tz") {
		return configured.Timezone, nil
	}
	tz, err := config.Location(c.String("tz"))
	if err != nil {
		return nil, usageError("--tz: %w", err)
	}
	return tz, nil
}

// stopped replaces the error of a command that a signal ended.
func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("stopped")
	}
	return err
}

// ifSet returns a flag's value, nil if the flag is not given.
func ifSet(c *cli.Command, flag string) *string {
	if !c.IsSet(flag) {
		return nil
	}
	value := c.String(flag)
	return &value
}

// tableOfRuns returns the newest runs for a table of as many lines as the filter's
// limit, in which skipped ticks share lines. That takes more runs than lines.
func tableOfRuns(ctx context.Context, r *reports.Reader, filter reports.RunFilter) ([]report.FoldedRun, error) {
	if filter.Statuses != nil { // what was between the ticks is not known
		rows, err := r.LatestRuns(ctx, filter)
		return report.Unfolded(rows), err
	}
	lines := filter.Limit
	for {
		rows, err := r.LatestRuns(ctx, filter)
		if err != nil {
			return nil, err
		}
		folded := report.Fold(rows)
		if len(rows) < filter.Limit || len(folded) >= lines || filter.Limit == maxRuns {
			return folded[:min(len(folded), lines)], nil
		}
		filter.Limit = min(8*filter.Limit, maxRuns)
	}
}

func (p *program) listRuns(ctx context.Context, c *cli.Command) error {
	if err := errors.Join(noArgs(c), checkSpreadsheet(c)); err != nil {
		return err
	}
	filter := reports.RunFilter{App: ifSet(c, "app"), Job: ifSet(c, "job"), Kind: ifSet(c, "kind"), Limit: c.Int("limit")}
	if c.IsSet("status") {
		filter.Statuses = strings.Split(c.String("status"), ",")
	}
	var rows []reports.RunRow
	var table []report.FoldedRun
	err := p.read(ctx, c, func(r *reports.Reader, configured []string, _ *time.Location) (err error) {
		if filter.App != nil {
			if err := knownApp(ctx, r, configured, *filter.App); err != nil {
				return err
			}
		}
		if c.String("format") == "table" {
			table, err = tableOfRuns(ctx, r, filter)
		} else {
			rows, err = r.LatestRuns(ctx, filter)
		}
		return err
	})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	switch c.String("format") {
	case "csv":
		err = report.WriteCSV(&out, rows, c.Bool("spreadsheet"))
	case "json":
		err = report.WriteRunsJSON(&out, rows)
	default:
		if len(table) == 0 {
			out.WriteString("There is no such run.\n")
			break
		}
		width, cut := p.width()
		err = report.WriteSections(&out, report.RunsSections(table), width, cut)
	}
	if err != nil {
		return fmt.Errorf("print the runs: %w", err)
	}
	return p.deliver("", out.Bytes())
}

// rangesShown is how many ranges, and failure codes, of a run are listed.
const rangesShown = 20

func (p *program) showRun(ctx context.Context, c *cli.Command) error {
	id, err := strconv.ParseInt(c.Args().First(), 10, 64)
	if c.Args().Len() != 1 || err != nil || id < 1 {
		return usageError("give the number of one run; syncer runs lists them\nsee: %s --help", c.FullName())
	}
	var detail reports.RunDetail
	err = p.read(ctx, c, func(r *reports.Reader, _ []string, _ *time.Location) (err error) {
		var ok bool
		detail, ok, err = r.RunDetail(ctx, id, rangesShown)
		if err == nil && !ok {
			err = fmt.Errorf("there is no run %d; syncer runs lists the latest (those before the retention are dropped)", id)
		}
		return err
	})
	if err != nil {
		return err
	}
	if c.String("format") == "json" {
		return p.printJSON(func(w io.Writer) error { return report.WriteRunJSON(w, detail) })
	}
	return p.printSections(report.RunSections(detail, rangesShown))
}

func (p *program) printJSON(write func(io.Writer) error) error {
	var out bytes.Buffer
	if err := write(&out); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return p.deliver("", out.Bytes())
}

func (p *program) printSections(sections []report.Section) error {
	var out bytes.Buffer
	width, cut := p.width()
	if err := report.WriteSections(&out, sections, width, cut); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return p.deliver("", out.Bytes())
}
