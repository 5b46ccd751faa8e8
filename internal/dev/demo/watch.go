package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	barCells = 20
	// fullBar is the share of users online that fills a bar; at the best hour of
	// the simulated day it is a bit less.
	fullBar = 0.20
	// startPatience is how long the first sweeps may take beyond their intervals.
	startPatience = time.Minute
)

// watch runs the daemon and draws a line for each of its presence sweeps.
func (d *demo) watch(ctx context.Context) error {
	d.screen.heading("The daemon: run")
	d.screen.say("Sweeps on schedule from now on; only what changed is written. Each line is one tick.")
	d.screen.prompt("syncer run 2> daemon.log &")
	var err error
	if d.daemon, err = d.startSyncer("daemon.log", "run"); err != nil {
		return err
	}
	fmt.Fprintf(d.screen.out, "\n%-10s%-*s%8s%9s     %-*s%8s%9s\n", "tick (UTC)",
		barCells+1, " tencent", "online", "changed", barCells, "openim", "online", "changed")
	if err := d.drawSweeps(ctx); err != nil {
		return err
	}
	if d.keep {
		return nil
	}
	d.screen.prompt("kill %2")
	if err := d.daemon.Stop(); err != nil {
		return fmt.Errorf("%w\n%s", err, d.daemon.LastOutput())
	}
	d.screen.say("The daemon has finished the pages in flight and ended with exit code 0.")
	return nil
}

// tick is what came of the presence job at one scheduled instant.
type tick struct {
	At                            time.Time
	Tencent, OpenIM               *int64 // users online; nil: skipped
	TencentChanged, OpenIMChanged int64
	Problem                       string // why a run failed
}

// A tick is shown once the runs of both apps are closed, and those of all ticks
// before it: one that is skipped is closed while the run in its way still goes.
const ticksSQL = `
SELECT u.tick AS at,
       max(c.users) FILTER (WHERE a.provider = 'tencent') AS tencent,
       max(c.users) FILTER (WHERE a.provider = 'openim') AS open_im,
       max(u.changed) FILTER (WHERE a.provider = 'tencent') AS tencent_changed,
       max(u.changed) FILTER (WHERE a.provider = 'openim') AS open_im_changed,
       coalesce(max(a.name || ': ' || u.error), '') AS problem
FROM syncer.sync_run AS u
JOIN syncer.app AS a USING (app_id)
LEFT JOIN syncer.presence_count AS c
  ON c.app_id = u.app_id AND c.run_id = u.run_id AND c.state = 'online' AND c.platform = 'all'
WHERE u.job = 'presence' AND u.tick > $1
  AND NOT EXISTS (
      SELECT FROM syncer.sync_run AS before
      WHERE before.job = u.job AND before.tick < u.tick AND before.status = 'running'
  )
GROUP BY u.tick
HAVING count(*) = 2 AND bool_and(u.status <> 'running')
ORDER BY u.tick`

// drawSweeps waits for the sweeps that the demo is to show, and lets people sign
// up in between.
func (d *demo) drawSweeps(ctx context.Context) error {
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	late := time.NewTimer(time.Duration(d.sweeps)*d.interval + startPatience)
	defer late.Stop()
	var last time.Time
	for drawn := 0; drawn < d.sweeps; {
		rows, err := d.db.Query(ctx, ticksSQL, last)
		if err != nil {
			return fmt.Errorf("look for sweeps: %w", err)
		}
		ticks, err := pgx.CollectRows(rows, pgx.RowToStructByName[tick])
		if err != nil {
			return fmt.Errorf("look for sweeps: %w", err)
		}
		for _, t := range ticks {
			if t.Problem != "" {
				return fmt.Errorf("a sweep failed: %s", t.Problem)
			}
			last = t.At
			d.draw(t)
			if t.Tencent == nil || t.OpenIM == nil {
				continue
			}
			if drawn++; drawn == d.sweeps/2 {
				if err := d.signUpSome(ctx); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.daemon.Gone:
			return d.daemon.Died()
		case <-d.simulator.Gone:
			return d.simulator.Died()
		case <-late.C:
			return fmt.Errorf("the daemon is too slow: %d of %d sweeps were done in time\n%s", drawn, d.sweeps, d.daemon.LastOutput())
		case <-poll.C:
		}
	}
	return nil
}

// draw prints the line of one tick.
func (d *demo) draw(t tick) {
	fmt.Fprintf(d.screen.out, "%-10s %s     %s\n", clock(t.At),
		d.columns(t.Tencent, t.TencentChanged), d.columns(t.OpenIM, t.OpenIMChanged))
}

// columns is one app's part of a tick's line.
func (d *demo) columns(online *int64, changed int64) string {
	if online == nil {
		return fmt.Sprintf("%-*s", barCells+17, "skipped: the sweep before still goes")
	}
	share := float64(*online) / float64(d.users)
	return fmt.Sprintf("%s%8s%9s", bar(share/fullBar, barCells), thousands(*online), thousands(changed))
}

// signUpSome lets the users table grow while the daemon sweeps it.
func (d *demo) signUpSome(ctx context.Context) error {
	newcomers := d.users / 80
	if err := d.signUp(ctx, d.users+1, d.users+newcomers); err != nil {
		return err
	}
	fmt.Fprintf(d.screen.out, "%-10s %s people sign up: they are in the users table now\n", "", thousands(int64(newcomers)))
	return nil
}

// healthAddress finds the daemon's line about its HTTP server in its log.
var healthAddress = regexp.MustCompile(`"address":"([^"]+)"`)

// health gives the address of the daemon's HTTP server.
func (d *demo) health() (string, error) {
	log, err := os.ReadFile(d.daemon.Output)
	if err != nil {
		return "", err
	}
	found := healthAddress.FindSubmatch(log)
	if found == nil {
		return "", errors.New("the daemon's log does not tell its address")
	}
	return string(found[1]), nil
}
