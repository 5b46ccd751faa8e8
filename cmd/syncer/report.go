package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"syncer/internal/build"
	"syncer/internal/config"
	"syncer/internal/pg"
	"syncer/internal/report"
	"syncer/migrations"
	"syncer/repo"
	"syncer/repo/reports"
)

// reportAll is the name of the command that prints all reports.
const reportAll = "all"

// reportUsages describes the reports in the order of the help; from is the default of --from.
var reportUsages = []struct {
	name, usage, from string
	days              bool // the default begins with a local day
	columns           string
}{
	{report.Concurrency, "how many users were online, over time", "-1d", false,
		"app, bucket (its beginning), bucket_seconds, observed_seconds, runs, users, online_min, online_avg, " +
			"online_max, push_online_avg. Buckets are 5 or 15 minutes, an hour or a day long, depending on the span. " +
			"The counts are empty where nothing was observed."},
	{report.ActiveUsers, "how many users were online in a day, in 7 and in 30 days", "-29d", true,
		"app, day, daily, weekly, monthly, observed_seconds, day_seconds."},
	{report.Sessions, "how long users stay online", "-6d", true,
		"app, day, sessions, cut_by_gap, open, median_seconds, p90_seconds, longest_seconds. JSON has the same " +
			"for the whole span in overall. With --users csv has the longest sessions instead, and JSON has them in " +
			"longest: app, user_id, started_after, started_at, ended_after, ended_at, known_seconds, " +
			"estimated_seconds, ended_by."},
	{report.Platforms, "on which platforms users are online", "-6d", true,
		"app, platform, users_avg, users_max, share (of the users online). JSON has in multi_platform the users " +
			"of several now: app, online, multi_platform, share."},
	{report.Accounts, "which accounts are imported, and how that changed", "-29d", true,
		"app, day, imported, not_imported, first_seen, became_imported, became_not_imported, gone. JSON has in coverage the present " +
			"state: app, imported, not_imported, never_checked, last_checked_at."},
	{report.Runs, "the latest runs and how they ended", "-1d", false,
		"app, run_id, kind, job, trigger, tick, status, started_at, finished_at, seconds, users, changed, failed, " +
			"removed, held_back, suspect_pages, rejected_answers, calls, retries, error."},
	{report.Gaps, "times without observation", "-29d", true,
		"app, kind, started_at, ended_at, seconds, seconds_in_span, last_seen_from, next_seen_by. JSON has in " +
			"coverage the observed time: app, kind, gaps, since, seconds, gap_seconds, observed_seconds, " +
			"observed_share."},
	{report.Inactive, "who was not online for some days, or never", "", false,
		"app, user_id, state, last_online_after, last_online_at (both empty: never), account_status, account_since, observed_from, " +
			"observed_until, observed_seconds, observed_share (of the days: where it is low nothing was seen, which does not mean that the user was away)."},
	{reportAll, "all of these but inactive", "-6d", true, "As in the other reports. JSON has a list in reports; there is no csv of all."},
}

func (p *program) reportCommand() *cli.Command {
	c := &cli.Command{
		Name:  "report",
		Usage: "report on the collected data",
		Description: "Needs only [database] of the configuration, and a role that may read (syncer grant-reader). " +
			"Time without observation counts as neither online nor offline." +
			examples("syncer report concurrency --from -7d", "syncer report active-users --tz Europe/Berlin --format csv", "syncer report all --format html -o report.html"),
		Action: unknownReport,
	}
	for _, u := range reportUsages {
		flags := []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "app", Usage: "only this `APP`"},
		}
		if u.name == report.Inactive {
			flags = append(flags, &cli.IntFlag{Name: "days", Value: 30, Usage: "not online in the last `N` days", Validator: checkDays})
		} else {
			flags = append(flags, &cli.StringFlag{Name: "from", Value: u.from, HideDefault: true, Validator: checkInstant,
				Usage: "begin at `TIME`: " + instantForms + " (default: " + defaultFrom(u.from, u.days) + ")"},
				&cli.StringFlag{Name: "to", Validator: checkInstant, Usage: "end at `TIME`, for a day its end (default: now)"})
		}
		flags = append(flags,
			&cli.StringFlag{Name: "tz", Usage: "show times and days in time zone `ZONE`, such as Europe/Berlin (default: [report] timezone)",
				Validator: func(s string) error { _, err := config.Location(s); return err }},
			formatFlag(formats(u.name)...),
			spreadsheetFlag(),
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output; - is standard output"},
		)
		if u.name == report.Sessions || u.name == reportAll {
			flags = append(flags, &cli.BoolFlag{Name: "users", Usage: fmt.Sprintf("also list the %d longest sessions, with user ids", report.Longest)})
		}
		c.Commands = append(c.Commands, &cli.Command{
			Name: u.name, Usage: u.usage, Description: "Columns of csv and keys of JSON:\n" + u.columns, Flags: flags,
			Action: func(ctx context.Context, c *cli.Command) error {
				return stopped(ctx, p.printReport(ctx, c, u.name, u.days))
			},
		})
	}
	return c
}

func spreadsheetFlag() cli.Flag {
	return &cli.BoolFlag{Name: "spreadsheet", Local: true, Usage: "with csv: put a ' before texts that a spreadsheet would run as a formula"}
}

func checkSpreadsheet(c *cli.Command) error {
	if c.Bool("spreadsheet") && c.String("format") != "csv" {
		return usageError("--spreadsheet goes with --format csv alone")
	}
	return nil
}

func defaultFrom(from string, days bool) string {
	if days {
		return "the beginning of the day " + strings.TrimSuffix(from[1:], "d") + " days ago"
	}
	return from
}

func formats(name string) []string {
	if name == reportAll {
		return []string{"table", "json", "html"}
	}
	return []string{"table", "csv", "json", "html"}
}

// unknownReport returns the error for an unknown report.
func unknownReport(ctx context.Context, c *cli.Command) error {
	name := c.Args().First()
	if name == "" {
		return unknownCommand(ctx, c)
	}
	var names []string
	for _, u := range reportUsages {
		names = append(names, u.name)
	}
	text := fmt.Sprintf("%q is no report", name)
	if meant := config.Nearest(name, names); meant != "" {
		text += fmt.Sprintf("; did you mean %q?", meant)
	}
	return usageError("%s (allowed: %s)", text, strings.Join(names, ", "))
}

func (p *program) printReport(ctx context.Context, c *cli.Command, name string, days bool) error {
	if err := errors.Join(noArgs(c), checkSpreadsheet(c)); err != nil {
		return err
	}
	var text bytes.Buffer
	err := p.read(ctx, c, func(r *reports.Reader, configured []string, tz *time.Location) error {
		span, err := readSpan(ctx, c, r, configured, tz, days)
		if err != nil {
			return err
		}
		query := reportQuery{reader: r, head: report.Head{Span: span, AsOf: r.AsOf, Version: build.Read().Version}, users: c.Bool("users")}
		reports, err := query.run(ctx, name)
		if err != nil {
			return err
		}
		return p.write(&text, c, query.head, name, reports)
	})
	if err != nil {
		return err
	}
	return p.deliver(c.String("output"), text.Bytes())
}

// read calls f with a reader, the names of the configured apps, and the zone that the flags
// name.
func (p *program) read(ctx context.Context, c *cli.Command, f func(r *reports.Reader, configured []string, tz *time.Location) error) error {
	loaded, err := p.loadReporting(c)
	if err != nil {
		return err
	}
	tz, err := zoneOf(c, loaded.Report)
	if err != nil {
		return err
	}
	store, err := openReader(ctx, loaded.Database, tz)
	if err != nil {
		return err
	}
	defer store.Close()
	return reports.Read(ctx, store.DB, func(r *reports.Reader) error { return f(r, loaded.Apps, tz) })
}

// loadReporting is load for commands that need only the database.
func (p *program) loadReporting(c *cli.Command) (*config.Reporting, error) {
	path, err := config.Find(c.String("config"))
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	loaded, err := config.LoadReporting(path, p.environ)
	if err != nil {
		return nil, configError(err)
	}
	p.stderr.configure(loaded.Log, c.Name)
	return loaded, nil
}

// openReader connects to the database for reading.
func openReader(ctx context.Context, db config.Database, tz *time.Location) (*repo.Store, error) {
	return openTool(ctx, db, pg.Config{MaxConns: 1, Process: "report", Location: tz})
}

// openTool connects to the database for a command that does not sweep. It sets URL, Schema
// and PollOnly of c.
func openTool(ctx context.Context, db config.Database, c pg.Config) (*repo.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c.URL, c.Schema, c.PollOnly = db.URL.Reveal(), db.Schema, db.PollOnly
	store, err := repo.Open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("database %s cannot be used: %w\n%s", db.URL, err, databaseAdvice)
	}
	if err := store.CheckSchema(ctx, migrations.Latest()); err != nil {
		store.Close()
		return nil, err
	}
	return store, nil
}

// longestSpan is the longest span of a report, in years: a mistyped year would make
// a row for each of its days.
const longestSpan = 100

func checkDays(days int) error {
	if most := longestSpan * 365; days < 1 || days > most {
		return fmt.Errorf("%d is not between 1 and %d", days, most)
	}
	return nil
}

// readSpan returns the span and the app that the flags name.
func readSpan(ctx context.Context, c *cli.Command, r *reports.Reader, configured []string, tz *time.Location, days bool) (reports.Span, error) {
	span := reports.Span{To: r.AsOf.In(tz), Location: tz}
	if c.Name == report.Inactive {
		span.From = span.To.Add(-time.Duration(c.Int("days")) * 24 * time.Hour)
		err := chooseApp(ctx, c, r, configured, &span)
		return span, err
	}
	from, err := parseInstant(c.String("from"))
	if err != nil {
		return span, usageError("--from: %w", err)
	}
	span.From = from.begin(r.AsOf, tz)
	if days && !c.IsSet("from") {
		span.From = startOfDay(span.From.Format(time.DateOnly), 0, tz)
	}
	if c.IsSet("to") {
		to, err := parseInstant(c.String("to"))
		if err != nil {
			return span, usageError("--to: %w", err)
		}
		span.To = to.end(r.AsOf, tz)
	}
	if !span.From.Before(span.To) {
		return span, usageError("--from (%s) is not before --to (%s)", span.From.Format(time.RFC3339), span.To.Format(time.RFC3339))
	}
	if longest := span.From.AddDate(longestSpan, 0, 0); longest.Before(span.To) {
		return span, usageError("--from (%s) to --to (%s) is longer than %d years", span.From.Format(time.RFC3339), span.To.Format(time.RFC3339), longestSpan)
	}
	err = chooseApp(ctx, c, r, configured, &span)
	return span, err
}

// chooseApp limits the span to the app that a flag names.
func chooseApp(ctx context.Context, c *cli.Command, r *reports.Reader, configured []string, span *reports.Span) error {
	if !c.IsSet("app") {
		return nil
	}
	app := c.String("app")
	span.App = &app
	return knownApp(ctx, r, configured, app)
}

// knownApp returns an error for an app that is neither configured nor in the database.
func knownApp(ctx context.Context, r *reports.Reader, configured []string, app string) error {
	known, err := r.AppNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range configured {
		if !slices.Contains(known, name) {
			known = append(known, name)
		}
	}
	slices.Sort(known)
	if !slices.Contains(known, app) {
		return unknownApp(app, known)
	}
	return nil
}

func unknownApp(name string, known []string) error {
	text := fmt.Sprintf("--app %s: no such app, neither in the configuration nor in the database", name)
	if meant := config.Nearest(name, known); meant != "" {
		text += fmt.Sprintf("; did you mean %q?", meant)
	}
	if len(known) == 0 {
		return usageError("%s (there are none yet)", text)
	}
	return usageError("%s (allowed: %s)", text, strings.Join(known, ", "))
}

// write writes the reports in the requested format.
func (p *program) write(w io.Writer, c *cli.Command, head report.Head, name string, reports []report.Report) error {
	switch c.String("format") {
	case "csv":
		rows := reports[0].Rows
		if c.Bool("users") {
			rows = reports[0].List("longest")
		}
		return report.WriteCSV(w, rows, c.Bool("spreadsheet"))
	case "json":
		if name == reportAll {
			return report.WriteAllJSON(w, head, reports)
		}
		return report.WriteJSON(w, head, reports[0])
	case "html":
		return report.WriteHTML(w, head, reports)
	default:
		width, terminal := defaultWidth, false
		if name := c.String("output"); name == "" || name == stdoutName {
			width, terminal = p.width()
		}
		return report.WriteText(w, head, reports, width, terminal)
	}
}

// stdoutName is standard output as the value of --output.
const stdoutName = "-"

// defaultWidth is the width of text without a terminal.
const defaultWidth = 80

// width returns the width of the terminal on standard output, and whether there is one.
func (p *program) width() (columns int, terminal bool) {
	if file, ok := p.stdout.(*os.File); ok {
		if columns, _, err := term.GetSize(int(file.Fd())); err == nil && columns > 0 {
			return columns, true
		}
	}
	return defaultWidth, false
}

// deliver writes the text to a file, atomically, or to standard output for "" and "-".
func (p *program) deliver(name string, text []byte) error {
	if name == "" || name == stdoutName {
		_, err := p.stdout.Write(text)
		if errors.Is(err, syscall.EPIPE) {
			return nil // the reader, such as head, has closed the pipe
		}
		if err != nil {
			return fmt.Errorf("print the report: %w", err)
		}
		return nil
	}
	if err := writeWhole(name, text); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	p.stderr.notice("wrote " + name)
	return nil
}

// writeWhole writes a file under another name first and renames it. Only the owner may read
// it, because reports can name users.
func writeWhole(name string, text []byte) (err error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(name, text, 0o600) // /dev/null, a pipe
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
