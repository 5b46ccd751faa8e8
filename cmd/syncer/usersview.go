package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v3"

	"syncer/internal/config"
	"syncer/repo/userstable"
)

func (p *program) usersViewCommand() *cli.Command {
	return &cli.Command{
		Name:  "users-view",
		Usage: "create or replace the view app_user, which joins your columns with user ids",
		Description: "The view app_user(app, key, user_id) in the schema has the users table of each app, with the configured " +
			"expression and condition. It reads with the rights of its caller (from Postgres 15 on), who must be allowed to read the " +
			"users table. The configured role must own the schema. Repeat this after a change of [users].",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "print", Usage: "print the SQL instead of running it"},
		},
		Action: p.usersView,
	}
}

func (p *program) usersView(ctx context.Context, c *cli.Command) error {
	if err := noArgs(c); err != nil {
		return err
	}
	loaded, err := p.load(c)
	if err != nil {
		return err
	}
	view, err := usersView(loaded)
	if err != nil {
		return err
	}
	if c.Bool("print") {
		fmt.Fprintln(p.stdout, strings.Join(view.SQL(true), ";\n")+";")
		return nil
	}
	invoker, err := view.Create(ctx, loaded.Database.URL.Reveal())
	if err != nil {
		return err
	}
	p.say("view %s has the users of %s", view.Name(), names(view.Parts))
	if !invoker {
		p.say("Postgres 14 reads it with the rights of this role: grant SELECT on it only to those who may see all users")
	}
	return nil
}

func names(parts []userstable.ViewPart) string {
	all := make([]string, len(parts))
	for i, part := range parts {
		all[i] = part.App
	}
	return strings.Join(all, ", ")
}

// usersView returns the view of a configuration. It fails if a users table is in another
// database than the schema.
func usersView(c *config.Config) (userstable.View, error) {
	view := userstable.View{Schema: c.Database.Schema}
	for _, app := range c.Apps {
		if !sameDatabase(app.Users.URL, c.Database.URL) {
			return view, fmt.Errorf("the users table of app %s is in another database than the schema, and a view cannot reach it\n"+
				"import it with postgres_fdw, or export it: see the chapter \"With your own columns\" of docs/reporting.md", app.Name)
		}
		view.Parts = append(view.Parts, userstable.ViewPart{App: app.Name, Config: usersConfig(app.Users, c.Database.URL)})
	}
	return view, nil
}

// sameDatabase reports whether the users URL, which may be empty, leads to the database of
// the other.
func sameDatabase(users, database config.DatabaseURL) bool {
	if users == "" || users == database {
		return true
	}
	a, err := pgx.ParseConfig(users.Reveal())
	if err != nil {
		return false
	}
	b, err := pgx.ParseConfig(database.Reveal())
	if err != nil {
		return false
	}
	return slices.Equal([]string{a.Host, fmt.Sprint(a.Port), a.Database}, []string{b.Host, fmt.Sprint(b.Port), b.Database})
}
