package main

import (
	"context"
	"fmt"
)

// explore leaves everything running until a signal comes, if that is wanted, and
// says what can be tried.
func (d *demo) explore(ctx context.Context) error {
	if !d.keep {
		return nil
	}
	health, err := d.health()
	if err != nil {
		return err
	}
	d.screen.heading("Your turn")
	d.screen.say("Simulator, daemon and Postgres go on until Ctrl-C. In another terminal:")
	fmt.Fprintf(d.screen.out, `
  cd %s
  ls                                   # config.toml, secrets, daemon.log
  ./syncer backfill --app openim       # sweep now; the daemon's ticks wait meanwhile
  ./syncer config check --connect
  ./syncer migrate status
  ./syncer --help
  tail -f daemon.log

  psql "$(cat database_url)"           # the address holds a throwaway password
    SELECT * FROM syncer.sync_run ORDER BY run_id DESC LIMIT 5;
    SELECT state, count(*) FROM syncer.presence_snapshot GROUP BY state;
    SELECT * FROM syncer.presence_history WHERE user_id = 'user-000042';
    SELECT * FROM syncer.user_failure LIMIT 5;

  curl http://%s/readyz
  curl %s/_sim/stats
  curl %s/_sim/users -d '{"user_id":"user-000042"}'    # now offline
`, d.dir, health, d.simURL, d.simURL)
	select {
	case <-ctx.Done():
		return nil
	case <-d.daemon.Gone:
		return d.daemon.Died()
	case <-d.simulator.Gone:
		return d.simulator.Died()
	}
}

// farewell is the last word, when nothing is left any more.
func (d *demo) farewell() {
	d.screen.gap()
	if d.keep {
		d.screen.say("Everything is stopped and removed. README.md says how to set it up for your own users.")
		return
	}
	d.screen.say("Everything is stopped and removed. To explore it yourself: make demo-keep. " +
		"To set it up for your own users: README.md.")
}
