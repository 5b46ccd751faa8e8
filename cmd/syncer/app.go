package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v3"

	"syncer/internal/config"
	"syncer/internal/pg"
	"syncer/repo"
)

func (p *program) appCommand() *cli.Command {
	return &cli.Command{
		Name:  "app",
		Usage: "change what is recorded about an app",
		Commands: []*cli.Command{{
			Name:      "moved",
			Usage:     "record that an OpenIM deployment has another address, with the same users",
			ArgsUsage: "NAME",
			Description: "An app's history belongs to one deployment, identified by its address; processes with another address are\n" +
				"refused. When the deployment moves, change base_url, stop all processes with the old address, and run\n" +
				"this once with the new configuration. It cancels running runs, and processes that still have the old\n" +
				"address can no longer write. For another deployment, with other users, choose another app name instead.",
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
	i := slices.IndexFunc(loaded.Apps, func(app config.App) bool { return app.Name == name })
	configured := loaded.Apps[i]
	if !configured.Provider.HasAddress() {
		return usageError("app %s: an app of Tencent Chat is identified by its sdk_app_id, not by its address; for another sdk_app_id choose another app name", name)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	store, err := openTool(ctx, loaded.Database, pg.Config{MaxConns: 2, Process: processName()})
	if err != nil {
		return err
	}
	defer store.Close()
	return p.moveApp(ctx, store, configured)
}

// moveApp records the configured address of an app.
func (p *program) moveApp(ctx context.Context, store *repo.Store, configured config.App) error {
	name := configured.Name
	app, err := store.FindApp(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("app %s is not in the database, so nothing of it could move; syncer run and backfill add it", name)
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
		p.say("cancelled running runs: %d", cancelled)
	}
	return nil
}
