package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jedib0t/go-pretty/v6/table"
)

// results shows what is in the database, and what it cost.
func (d *demo) results(ctx context.Context) error {
	for _, show := range []func(context.Context) error{
		d.showRuns, d.showPlatforms, d.showAccounts, d.showHistories, d.showCost,
	} {
		if err := show(ctx); err != nil {
			return err
		}
	}
	return nil
}

// query reads rows into structs whose fields are named as the columns.
func query[T any](ctx context.Context, d *demo, statement string, args ...any) ([]T, error) {
	rows, err := d.db.Query(ctx, statement, args...)
	if err == nil {
		var found []T
		if found, err = pgx.CollectRows(rows, pgx.RowToStructByName[T]); err == nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("read the results: %w", err)
}

// runsAlike sums up the rows of sync_run that have much in common.
type runsAlike struct {
	Job, Kind, App, Trigger, Status     string
	Runs, Users, Changed, Failed, Calls int64
	Longest                             time.Duration
}

const runsSQL = `
SELECT u.job, u.kind, a.name AS app, u.trigger, u.status, count(*) AS runs,
       sum(u.users)::bigint AS users, sum(u.changed)::bigint AS changed,
       sum(u.failed)::bigint AS failed, sum(u.calls)::bigint AS calls,
       max(u.finished_at - u.started_at) AS longest
FROM syncer.sync_run AS u
JOIN syncer.app AS a USING (app_id)
WHERE u.finished_at IS NOT NULL
GROUP BY u.job, u.kind, a.app_id, a.name, u.trigger, u.status
ORDER BY CASE u.trigger WHEN 'backfill' THEN 1 WHEN 'catch_up' THEN 2 ELSE 3 END, u.kind DESC, a.app_id, u.status`

func (d *demo) showRuns(ctx context.Context) error {
	d.screen.heading("Every sweep, in sync_run")
	runs, err := query[runsAlike](ctx, d, runsSQL)
	if err != nil {
		return err
	}
	t := d.screen.table(6, "job", "kind", "app", "trigger", "status", "runs", "users", "changed", "failed", "calls", "longest")
	for _, r := range runs {
		t.AppendRow(table.Row{r.Job, r.Kind, r.App, r.Trigger, r.Status, r.Runs,
			thousands(r.Users), thousands(r.Changed), thousands(r.Failed), thousands(r.Calls), roughly(r.Longest)})
	}
	t.Render()
	d.screen.gap()
	d.screen.say("catch_up: the tick that fell before the daemon was up, run once at its start. skipped: a tick that came " +
		"while the sweep before still went. partial: every user was asked about, some failed; user_failure says why.")
	return nil
}

// onPlatform is how many users are reachable on one platform, or in all.
type onPlatform struct {
	Platform                                                   string
	TencentOnline, TencentPush, OpenIMOnline, OpenIMBackground int64
}

const platformsSQL = `
WITH reachable AS (
    SELECT a.provider, p.platform, p.mode
    FROM syncer.presence_snapshot AS s
    JOIN syncer.app AS a USING (app_id)
    CROSS JOIN LATERAL jsonb_each_text(s.platforms) AS p (platform, mode)
)
SELECT platform,
       count(*) FILTER (WHERE provider = 'tencent' AND mode = 'online') AS tencent_online,
       count(*) FILTER (WHERE provider = 'tencent' AND mode = 'push_online') AS tencent_push,
       count(*) FILTER (WHERE provider = 'openim' AND mode = 'online') AS open_im_online,
       count(*) FILTER (WHERE provider = 'openim' AND mode = 'background') AS open_im_background
FROM reachable
GROUP BY platform
ORDER BY tencent_online DESC, platform`

// inState is how many users are in each state.
type inState struct {
	TencentOnline, TencentPush, TencentOffline int64
	OpenIMOnline, OpenIMOffline                int64
}

const statesSQL = `
SELECT count(*) FILTER (WHERE a.provider = 'tencent' AND s.state = 'online') AS tencent_online,
       count(*) FILTER (WHERE a.provider = 'tencent' AND s.state = 'push_online') AS tencent_push,
       count(*) FILTER (WHERE a.provider = 'tencent' AND s.state = 'offline') AS tencent_offline,
       count(*) FILTER (WHERE a.provider = 'openim' AND s.state = 'online') AS open_im_online,
       count(*) FILTER (WHERE a.provider = 'openim' AND s.state = 'offline') AS open_im_offline
FROM syncer.presence_snapshot AS s
JOIN syncer.app AS a USING (app_id)`

func (d *demo) showPlatforms(ctx context.Context) error {
	d.screen.heading("Who is online, in presence_snapshot")
	platforms, err := query[onPlatform](ctx, d, platformsSQL)
	if err != nil {
		return err
	}
	states, err := query[inState](ctx, d, statesSQL)
	if err != nil {
		return err
	}
	users := states[0]
	t := d.screen.table(2, "platform", "tencent: online", "push_online", "openim: online", "background")
	for _, p := range platforms {
		t.AppendRow(table.Row{p.Platform, thousands(p.TencentOnline), thousands(p.TencentPush),
			thousands(p.OpenIMOnline), thousands(p.OpenIMBackground)})
	}
	t.AppendFooter(table.Row{"users, each once", thousands(users.TencentOnline), thousands(users.TencentPush), thousands(users.OpenIMOnline)})
	t.Render()
	d.screen.gap()
	d.screen.say("Offline: %s at tencent, %s at openim. push_online is disconnected, but reachable by push; OpenIM has no "+
		"such state, but tells which connections are in the background.",
		thousands(users.TencentOffline), thousands(users.OpenIMOffline))
	return nil
}

// accountsOf says who of an app's users has been imported.
type accountsOf struct {
	App                    string
	Imported, Users, Newly int64
}

const accountsSQL = `
SELECT a.name AS app,
       count(*) FILTER (WHERE s.status = 'imported') AS imported,
       count(*) AS users,
       (SELECT count(*) FROM syncer.account_history AS h
        WHERE h.app_id = a.app_id AND h.prev_status = 'not_imported' AND h.status = 'imported') AS newly
FROM syncer.account_snapshot AS s
JOIN syncer.app AS a USING (app_id)
GROUP BY a.app_id, a.name
ORDER BY a.app_id`

func (d *demo) showAccounts(ctx context.Context) error {
	accounts, err := query[accountsOf](ctx, d, accountsSQL)
	if err != nil {
		return err
	}
	for _, a := range accounts {
		d.screen.say("Imported into %s: %s of %s users, %s of them during the demo (account_snapshot).",
			a.App, thousands(a.Imported), thousands(a.Users), thousands(a.Newly))
	}
	return nil
}

// clock writes the time of day of an instant, in UTC.
func clock(at time.Time) string { return at.UTC().Format(time.TimeOnly) }
