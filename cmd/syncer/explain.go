package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v3"

	"syncer/imclient"
	"syncer/internal/config"
	"syncer/internal/report"
	"syncer/internal/schedule"
	"syncer/jobs"
	"syncer/repo"
	"syncer/repo/reports"
)

func (p *program) explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "explain why a user is, or is not, updated",
		ArgsUsage: "USER",
		Description: "USER is the IM user id. Looks it up in the users table (reading all of it if [users] user_id has no index), and shows " +
			"what is known of it and since when, whether and why it fails, its runs, and when the next one begins; for every " +
			"app by default. It changes nothing.\n" +
			"JSON is an object with a list of apps. Its keys are named like the columns of tables and views. It has the whole " +
			"history and all rolled-up days, which answers a request for access to personal data.\n" +
			"Exit codes: 0 found and fine, 1 an error prevented the answer, 3 something is wrong, or the user is in no users " +
			"table.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "app", Usage: "only in this `APP`"},
			zoneFlag(),
			formatFlag("table", "json"),
		},
		Action: func(ctx context.Context, c *cli.Command) error { return stopped(ctx, p.explain(ctx, c)) },
	}
}

func (p *program) explain(ctx context.Context, c *cli.Command) error {
	if c.Args().Len() != 1 || c.Args().First() == "" {
		return usageError("give one user id\nsee: %s --help", c.FullName())
	}
	userID := c.Args().First()
	loaded, err := p.load(c)
	if err != nil {
		return err
	}
	apps, err := chosenApps(loaded, ifSet(c, "app"))
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
	x := explainer{config: loaded, store: store, userID: userID, tz: tz}
	if c.String("format") == "table" {
		x.changes = new(changesShown)
	}
	var all []report.Explanation
	var now time.Time
	for _, app := range apps {
		explained, at, err := x.app(ctx, app)
		if err != nil {
			return err
		}
		all, now = append(all, explained), at
	}
	if c.String("format") == "json" {
		err = p.printJSON(func(w io.Writer) error { return report.WriteExplanationsJSON(w, all, now) })
	} else {
		var sections []report.Section
		for _, explained := range all {
			sections = append(sections, explained.Sections(now)...)
		}
		err = p.printSections(sections)
	}
	if err != nil {
		return err
	}
	return explainVerdict(all)
}

// chosenApps returns the named app, or all if name is nil.
func chosenApps(c *config.Config, name *string) ([]config.App, error) {
	if name == nil {
		return c.Apps, nil
	}
	var names []string
	for _, app := range c.Apps {
		if app.Name == *name {
			return []config.App{app}, nil
		}
		names = append(names, app.Name)
	}
	return nil, unknownApp(*name, names)
}

// explainVerdict returns the exit code as an error. An app whose users table lacks the user
// counts only if all others lack it too.
func explainVerdict(all []report.Explanation) error {
	listed, troubled := false, false
	for _, e := range all {
		if e.Listing.Err != nil {
			return &exitError{code: exitFailed, err: errors.New("a users table cannot be read: see above")}
		}
		if e.Listing.Listed() {
			listed = true
			troubled = troubled || len(e.Troubles()) > 0
		}
	}
	switch {
	case !listed:
		return &exitError{code: exitPartial, err: errors.New("syncer does not poll this user")}
	case troubled:
		return &exitError{code: exitPartial, err: errors.New("something is wrong with this user: see above")}
	default:
		return nil
	}
}

// explainer collects what is known of one user.
type explainer struct {
	config *config.Config
	store  *repo.Store
	userID string
	tz     *time.Location
	// changes is how many rows of the user's history are read; nil: all.
	changes *int
}

func (x *explainer) app(ctx context.Context, c config.App) (e report.Explanation, now time.Time, err error) {
	e = report.Explanation{UserID: x.userID, App: c.Name, Provider: string(c.Provider), Listing: x.listing(ctx, c.Users)}
	if ctx.Err() != nil {
		return e, now, ctx.Err()
	}
	app, err := x.store.FindApp(ctx, c.Name)
	if errors.Is(err, pgx.ErrNoRows) {
		app, err = repo.App{Name: c.Name}, nil // never swept; no app has the id 0
	}
	if err != nil {
		return e, now, err
	}
	salt := repo.Salt(x.config.History.ErasureSalt.Reveal())
	if e.Listing.Excluded, err = x.store.IsExcluded(ctx, app.ID, salt, x.userID); err != nil {
		return e, now, err
	}
	err = reports.Read(ctx, x.store.DB, func(r *reports.Reader) error {
		now = r.AsOf
		for _, kind := range imclient.Kinds() {
			story, err := r.Story(ctx, app.ID, app.Name, kind, x.userID, x.changes)
			if err != nil {
				return err
			}
			k := report.KindExplanation{Kind: string(kind), UserStory: story}
			if story.Failure != nil {
				k.Meaning = codeMeaning(c.Provider, story.Failure.Code)
			}
			if k.Jobs, err = x.jobs(ctx, r, app, kind); err != nil {
				return err
			}
			e.Kinds = append(e.Kinds, k)
		}
		e.Listing.NoID, err = r.FailureOf(ctx, app.ID, imclient.KindPresence, "")
		return err
	})
	return e, now, err
}

// changesShown is how many rows of the user's history a table shows.
const changesShown = 5

// listing looks the user up in the users table. If there is no such user, it looks for a
// row outside of the where condition, then for a row with the id as its key.
func (x *explainer) listing(ctx context.Context, c config.Users) report.Listing {
	l := report.Listing{Table: usersTable(c), Where: c.Where}
	users, err := (&system{config: x.config}).openUsers(ctx, c)
	if err != nil {
		l.Err = err
		return l
	}
	defer users.Close()
	if l.Rows, l.Err = users.FindUser(ctx, x.userID, false); l.Err != nil || len(l.Rows) > 0 {
		return l
	}
	if c.Where != "" {
		l.Rows, l.OutsideErr = users.FindUser(ctx, x.userID, true)
	}
	if len(l.Rows) == 0 {
		l.ByKey, l.Err = users.FindKey(ctx, x.userID)
	}
	return l
}

// jobs returns when the jobs of the app and kind run.
func (x *explainer) jobs(ctx context.Context, r *reports.Reader, app repo.App, kind imclient.Kind) ([]report.JobExplanation, error) {
	var all []report.JobExplanation
	for _, job := range x.config.Jobs {
		if job.Kind != kind || job.App != "" && job.App != app.Name {
			continue
		}
		ticks, err := schedule.Parse(job.Schedule, job.Timezone)
		if err != nil {
			return nil, err
		}
		last, err := r.LastTick(ctx, app.ID, kind, job.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, report.ExplainJob(job.Name, ticks, last, r.AsOf.In(x.tz)))
	}
	return all, nil
}

// codeMeaning returns what the code of a failure means, "" if that is unknown.
func codeMeaning(provider imclient.Provider, code string) string {
	switch code {
	case imclient.CodeInvalidID:
		return "the id violates the provider's rules, so it was not sent; correct it, or exclude it with [users] where"
	case imclient.CodeMissing:
		return "two answers did not contain the user"
	case imclient.CodeUnknownValue:
		return "the answer has no value for the user that this version of syncer knows"
	case jobs.CodeContradicted:
		return "two APIs of OpenIM contradict each other about the user, who keeps the last known value until they agree: the API server cannot reach a message gateway, or one stopped within the last half hour"
	case imclient.CodeHTTPError:
		return "the backend, or a proxy before it, refuses a call with this id"
	}
	m, ok := providers[provider].meaning(code)
	switch {
	case !ok:
		return ""
	case m.Says != "":
		return m.Says
	}
	switch m.Class {
	case imclient.ClassBadBatch:
		return "the backend refuses every call with this id"
	case imclient.ClassTransient:
		return fmt.Sprintf("the backend failed for this user (%s); the next run retries", m.Class)
	default:
		return "class " + m.Class.String()
	}
}
