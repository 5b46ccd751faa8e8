package main

import (
	"context"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"syncer/internal/config"
	"syncer/internal/pg"
	"syncer/repo"
)

func (p *program) forgetCommand() *cli.Command {
	return &cli.Command{
		Name:      "forget",
		Usage:     "erase a user from the database",
		ArgsUsage: "USER",
		Description: "USER is the IM user id. Erases the user from snapshots, histories, daily roll-ups, failures, lists of runs, " +
			"messages and the queue, in every app by default, and records a salted hash of the id ([history] erasure_salt). Without --yes it " +
			"only shows what it would erase. It refuses if the user is still in the users table, from which the next " +
			"sweep would record it again: remove it there first, or use --exclude.\n" +
			"It does not reach counts, logs, traces, backups and archives; docs/privacy.md says how long they keep what.\n" +
			"After the restore of a backup, --again erases those users again whose erasure is recorded: in the database, and in the file that --records " +
			"names, which is what --list printed earlier." +
			examples("syncer forget anna", "syncer forget anna --yes", "syncer forget anna --exclude --yes",
				"syncer forget --list > erasures.csv", "syncer forget --again --records erasures.csv --yes"),
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "app", Usage: "only in this `APP`"},
			&cli.BoolFlag{Name: "exclude", Usage: "also make sweeps skip the user, who may then stay in the users table"},
			&cli.BoolFlag{Name: "yes", Usage: "do it"},
			&cli.BoolFlag{Name: "again", Usage: "erase every user again whose erasure is recorded"},
			&cli.StringFlag{Name: "records", Usage: "with --again: also those in `FILE`"},
			&cli.BoolFlag{Name: "list", Usage: "print the recorded erasures as CSV; it holds no user ids"},
		},
		Action: func(ctx context.Context, c *cli.Command) error { return stopped(ctx, p.forget(ctx, c)) },
	}
}

func checkForgetFlags(c *cli.Command) error {
	again, list := c.Bool("again"), c.Bool("list")
	switch {
	case again && list:
		return usageError("give --again or --list, not both")
	case again || list:
		if c.Bool("exclude") {
			return usageError("--exclude goes with a user id")
		}
		if list && c.Bool("yes") {
			return usageError("--list changes nothing: leave --yes out")
		}
		if c.IsSet("records") && !again {
			return usageError("--records goes with --again")
		}
		return noArgs(c)
	case c.IsSet("records"):
		return usageError("--records goes with --again")
	case c.Args().Len() != 1 || c.Args().First() == "":
		return usageError("give one user id\nsee: %s --help", c.FullName())
	}
	return nil
}

// forgetting erases users of apps.
type forgetting struct {
	*program
	config *config.Config
	store  *repo.Store
	salt   repo.Salt
	apps   []repo.App
	dryRun bool
}

func (p *program) forget(ctx context.Context, c *cli.Command) error {
	if err := checkForgetFlags(c); err != nil {
		return err
	}
	loaded, err := p.load(c)
	if err != nil {
		return err
	}
	salt := repo.Salt(loaded.History.ErasureSalt.Reveal())
	if salt == "" && !c.Bool("list") {
		return usageError("[history] erasure_salt is missing, which keys the hashes of erased users: make one with\n\topenssl rand -hex 32\nand configure it as erasure_salt_file; see docs/privacy.md")
	}
	store, err := openTool(ctx, loaded.Database, pg.Config{MaxConns: 2, Process: processName(), Location: time.UTC})
	if err != nil {
		return err
	}
	defer store.Close()
	f := &forgetting{program: p, config: loaded, store: store, salt: salt, dryRun: !c.Bool("yes")}
	if c.Bool("list") {
		return f.list(ctx, ifSet(c, "app"))
	}
	if err := store.CheckWritable(ctx); err != nil {
		return err
	}
	if f.apps, err = f.chosen(ctx, ifSet(c, "app")); err != nil {
		return err
	}
	if c.Bool("again") {
		err = f.again(ctx, c.String("records"))
	} else {
		err = f.user(ctx, c.Args().First(), c.Bool("exclude"))
	}
	if err != nil {
		return err
	}
	if f.dryRun {
		p.say("nothing was changed: repeat this with --yes")
	}
	return nil
}

// chosen returns the named app, or all that the database has if name is nil: also those that
// are not configured any more.
func (f *forgetting) chosen(ctx context.Context, name *string) ([]repo.App, error) {
	apps, err := f.store.Apps(ctx)
	if err != nil || name == nil {
		return apps, err
	}
	var names []string
	for _, app := range apps {
		if app.Name == *name {
			return []repo.App{app}, nil
		}
		names = append(names, app.Name)
	}
	return nil, unknownApp(*name, names)
}

// user erases one user, in every app or in none if it is still in a users table.
func (f *forgetting) user(ctx context.Context, userID string, exclude bool) error {
	if !exclude {
		for _, app := range f.apps {
			if err := f.checkLeft(ctx, app.Name, userID); err != nil {
				return err
			}
		}
	}
	var all places
	for _, app := range f.apps {
		erased, err := f.store.Erase(ctx, repo.Erasure{App: app, UserID: userID, Salt: f.salt, Exclude: exclude, DryRun: f.dryRun})
		if err != nil {
			return err
		}
		all.add(app.Name, erased)
	}
	f.print(&all)
	if exclude {
		f.say("sweeps %s the user, until the row in table erasure is changed", map[bool]string{true: "would skip", false: "skip"}[f.dryRun])
	}
	f.say("%s", paragraph(notReached))
	return nil
}

// notReached is what an erasure leaves.
const notReached = `not reached:
  counts (presence_count, counters of runs), which hold no user ids
  logs and traces: logs can name users who fail
  backups, the write-ahead log and replicas that lag: after a restore run syncer forget --again
  archives and reports that were written to files
  the IM backend and the users table`

// checkLeft returns an error if an app's users table still has a user.
func (f *forgetting) checkLeft(ctx context.Context, app, userID string) error {
	i := slices.IndexFunc(f.config.Apps, func(c config.App) bool { return c.Name == app })
	if i < 0 {
		return nil // it is not swept
	}
	c := f.config.Apps[i].Users
	s := &system{config: f.config}
	defer s.users.Close()
	users, err := s.openUsers(ctx, c)
	if err != nil {
		return err
	}
	rows, err := users.FindUser(ctx, userID, false)
	if err != nil {
		return fmt.Errorf("app %s: look whether the user is still in the users table: %w", app, err)
	}
	if len(rows) == 0 {
		return nil
	}
	key := ""
	if rows[0].Key != nil {
		key = ", with key " + *rows[0].Key
	}
	return &exitError{code: exitFailed, err: fmt.Errorf("app %s: the user is still in users table %s%s; the next sweep would record it again.\n"+
		"Remove it there, or leave it out with [users] where, and repeat this; or repeat it with --exclude", app, usersTable(c), key)}
}

// again erases the users whose erasure is recorded, in the tables and in a file.
func (f *forgetting) again(ctx context.Context, file string) error {
	wanted := make(map[string]map[string]bool) // apps to hashes to whether the user is excluded
	var records []repo.ErasureRecord
	if file != "" {
		var err error
		if records, err = readErasures(file); err != nil {
			return err
		}
		if !f.dryRun {
			if err := f.store.ListErasures(ctx, records); err != nil {
				return err
			}
		}
	}
	stored, err := f.store.Erasures(ctx, nil)
	if err != nil {
		return err
	}
	others := 0
	own := string(f.salt.ID())
	for _, r := range slices.Concat(records, stored) {
		if string(r.SaltID) != own {
			others++
			continue
		}
		if wanted[r.App] == nil {
			wanted[r.App] = make(map[string]bool)
		}
		wanted[r.App][string(r.UserHash)] = wanted[r.App][string(r.UserHash)] || r.Excluded
	}
	var all places
	var listed []error
	users := 0
	for _, app := range f.apps {
		found := make(map[string]bool)
		hashes := wanted[app.Name]
		if len(hashes) > 0 {
			err := f.store.StoredUsers(ctx, app.ID, func(id string) {
				if excluded, is := hashes[string(f.salt.Hash(id))]; is {
					found[id] = excluded
				}
			})
			if err != nil {
				return err
			}
		}
		for _, id := range slices.Sorted(maps.Keys(found)) {
			erased, err := f.store.Erase(ctx, repo.Erasure{App: app, UserID: id, Salt: f.salt, Exclude: found[id], DryRun: f.dryRun})
			if err != nil {
				return err
			}
			all.add(app.Name, erased)
			users++
			if !found[id] {
				listed = append(listed, f.checkLeft(ctx, app.Name, id))
			}
		}
	}
	f.print(&all)
	f.say("erased users who were in the database again: %d", users)
	if err := errors.Join(listed...); err != nil {
		return &exitError{code: exitPartial, err: err}
	}
	if others > 0 {
		return &exitError{code: exitPartial, err: fmt.Errorf("%d recorded erasures have another salt than [history] erasure_salt: repeat this with that one", others)}
	}
	return nil
}

// places is what erasures changed, by app and place.
type places struct {
	rows      map[[2]string]int64
	cancelled []string
	ended     []string
}

func (a *places) add(app string, e repo.Erased) {
	if a.rows == nil {
		a.rows = make(map[[2]string]int64)
	}
	for _, p := range e.Places {
		a.rows[[2]string{app, p.Place}] += p.Rows
	}
	for _, run := range e.Cancelled {
		a.cancelled = append(a.cancelled, strconv.FormatInt(run, 10))
	}
	for _, run := range e.Ended {
		a.ended = append(a.ended, strconv.FormatInt(run, 10))
	}
}

func (f *forgetting) print(all *places) {
	if len(all.rows) == 0 {
		f.say("the database has no row of such a user")
	} else {
		t := newTable(f.stdout, "app", "where", "rows")
		for _, key := range slices.SortedFunc(maps.Keys(all.rows), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
			t.AppendRow([]any{key[0], key[1], all.rows[key]})
		}
		t.Render()
	}
	if len(all.cancelled) > 0 {
		f.say("running runs that are cancelled, since the id bounds one of their ranges: %s", strings.Join(all.cancelled, ", "))
	}
	if len(all.ended) > 0 {
		f.say("runs that can no longer be resumed, for the same reason: %s", strings.Join(all.ended, ", "))
	}
}

// erasureColumns are the columns of the list of erasures.
var erasureColumns = []string{"app", "user_hash", "salt_id", "erased_at", "excluded"}

func (f *forgetting) list(ctx context.Context, app *string) error {
	records, err := f.store.Erasures(ctx, app)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f.stdout)
	_ = w.Write(erasureColumns) // Flush returns the error
	for _, r := range records {
		_ = w.Write([]string{r.App, hex.EncodeToString(r.UserHash), hex.EncodeToString(r.SaltID), r.ErasedAt.UTC().Format(time.RFC3339Nano), strconv.FormatBool(r.Excluded)})
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return fmt.Errorf("print the erasures: %w", err)
	}
	return nil
}

// readErasures reads what list printed.
func readErasures(name string) ([]repo.ErasureRecord, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, usageError("--records: %w", err)
	}
	defer file.Close()
	r := csv.NewReader(file)
	header, err := r.Read()
	if err != nil || !slices.Equal(header, erasureColumns) {
		return nil, usageError("--records %s: it is not what syncer forget --list prints: its first line has to be %s", name, strings.Join(erasureColumns, ","))
	}
	var all []repo.ErasureRecord
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, usageError("--records %s: %w", name, err)
		}
		record, err := erasureRecord(fields)
		if err != nil {
			line, _ := r.FieldPos(0)
			return nil, usageError("--records %s: line %d: %w", name, line, err)
		}
		all = append(all, record)
	}
}

func erasureRecord(fields []string) (r repo.ErasureRecord, err error) {
	r.App = fields[0]
	var errs [4]error
	r.UserHash, errs[0] = hex.DecodeString(fields[1])
	r.SaltID, errs[1] = hex.DecodeString(fields[2])
	r.ErasedAt, errs[2] = time.Parse(time.RFC3339Nano, fields[3])
	r.Excluded, errs[3] = strconv.ParseBool(fields[4])
	return r, errors.Join(errs[:]...)
}
