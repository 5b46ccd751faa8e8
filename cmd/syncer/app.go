package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v3"

	"syncer/internal/config"
	"syncer/internal/pg"
	"syncer/migrations"
	"syncer/repo"
)

func (p *program) appCommand() *cli.Command {
	return &cli.Command{
		Name:  "app",
		Usage: "change what is recorded of an app",
		Commands: []*cli.Command{{
			Name:      "moved",
			Usage:     "record that an OpenIM deployment has another address, with the same users",
			ArgsUsage: "NAME",
			Description: "An app's history is about one deployment, which is known by its address; processes that are configured\n" +
				"for another one are refused. When the deployment moves, change base_url, stop all processes that have the\n" +
				"old one, and run this with the new configuration, once. Runs that are going are cancelled. A process\n" +
				"that still has the old address writes nothing from then on. For another deployment, with other users,\n" +
				"give the app another name instead.",
			Flags:  []cli.Flag{configFlag()},
			Action: p.appMoved,
		}},
	}
}

func (p *program) appMoved(ctx context.Context, c *cli.Command) error {
	if c.Args().Len() != 1 {
		return usageError("give the name of one app\nsee: %s --help", c.FullName())
	}
	name := c.Args().First()
	loaded, err := p.load(c)
	if err != nil {
		return err
	}
	if err := knownApps(loaded, []string{name}); err != nil {
		return err
	}
	var configured config.App
	for _, app := range loaded.Apps {
		if app.Name == name {
			configured = app
		}
	}
	if !configured.Provider.HasAddress() {
		return usageError("app %s: an app of Tencent Chat is known by its sdk_app_id, wherever it is; another sdk_app_id is another app: give it another name", name)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	db := loaded.Database
	store, err := repo.Open(ctx, pg.Config{URL: db.URL.Reveal(), Schema: db.Schema, MaxConns: 2, PollOnly: db.PollOnly, Process: processName()})
	if err != nil {
		return fmt.Errorf("database %s cannot be used: %w\n%s", db.URL, err, databaseAdvice)
	}
	defer store.Close()
	if err := store.CheckSchema(ctx, migrations.Latest()); err != nil {
		return err
	}
	app, err := store.FindApp(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("app %s is not in the database: nothing is recorded that could have moved; syncer run and backfill add it", name)
	}
	if err != nil {
		return err
	}
	if app.Provider != configured.Provider {
		return store.CheckApp(ctx, name, configured.Provider, configured.Tenant())
	}
	from, cancelled, err := store.MoveApp(ctx, app, configured.Tenant())
	if err != nil {
		return err
	}
	if from == configured.Tenant() {
		p.say("app %s is at %s already; nothing is changed", name, from)
		return nil
	}
	if from == "" {
		from = "an address that was not recorded"
	}
	p.say("app %s has moved from %s to %s", name, from, configured.Tenant())
	if cancelled > 0 {
		p.say("runs that were going and are cancelled: %d", cancelled)
	}
	return nil
}
