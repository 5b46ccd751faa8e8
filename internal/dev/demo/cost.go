package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// simulatorStats is what the demo reads of the simulator's GET /_sim/stats.
type simulatorStats struct {
	Connections int                 `json:"connections"`
	APIs        map[string]apiStats `json:"apis"`
}

type apiStats struct {
	Calls        int64 `json:"calls"`
	IDs          int64 `json:"ids"`
	MaxIDs       int64 `json:"max_ids"`
	MaxPerSecond int64 `json:"max_per_second"`
	Failed       int64 `json:"failed"`
}

// stats asks the simulator what it saw.
func (d *demo) stats(ctx context.Context) (simulatorStats, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var s simulatorStats
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.simURL+"/_sim/stats", nil)
	if err != nil {
		return s, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return s, fmt.Errorf("ask the simulator what it saw: %w", err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("ask the simulator what it saw: %w", err)
	}
	return s, nil
}

// apiLimits are what a call and a second may hold, as shown. Tencent's are
// documented; OpenIM has none, so its are the defaults of the configuration.
var apiLimits = []struct{ path, ids, calls string }{
	{"/v4/openim/query_online_status", "500", "200"},
	{"/v4/im_open_login_svc/account_check", "100", "100"},
	{"/user/get_users_online_status", "500", "50"},
	{"/user/account_check", "500", "50"},
}

func (d *demo) showCost(ctx context.Context) error {
	d.screen.heading("What it cost")
	s, err := d.stats(ctx)
	if err != nil {
		return err
	}
	t := d.screen.table(2, "API", "calls", "failed", "most ids/call", "allowed", "most calls/s", "allowed")
	for _, limit := range apiLimits {
		a := s.APIs[limit.path]
		t.AppendRow(table.Row{limit.path, thousands(a.Calls), thousands(a.Failed),
			a.MaxIDs, limit.ids, a.MaxPerSecond, limit.calls})
	}
	t.Render()
	d.screen.gap()
	d.screen.say("As the simulator counted them. Tencent's limits are documented; OpenIM sets none, so its are those of the " +
		"configuration.")
	return d.showWrites(ctx)
}

// writes compares what was learnt with what was written.
type writes struct {
	Observed, Changed           int64 // in all scheduled presence runs
	FirstObserved, FirstChanged int64 // in the backfill
}

const writesSQL = `
SELECT coalesce(sum(users - failed) FILTER (WHERE trigger <> 'backfill'), 0)::bigint AS observed,
       coalesce(sum(changed) FILTER (WHERE trigger <> 'backfill'), 0)::bigint AS changed,
       coalesce(sum(users - failed) FILTER (WHERE trigger = 'backfill'), 0)::bigint AS first_observed,
       coalesce(sum(changed) FILTER (WHERE trigger = 'backfill'), 0)::bigint AS first_changed
FROM syncer.sync_run
WHERE kind = 'presence' AND complete`

func (d *demo) showWrites(ctx context.Context) error {
	found, err := query[writes](ctx, d, writesSQL)
	if err != nil {
		return err
	}
	w := found[0]
	d.screen.say("The backfill wrote each of its %s answers about presence: all were news. Of the daemon's %s it wrote "+
		"%s (%.0f %%), the changes of a sped-up day; an unchanged user costs no write.",
		thousands(w.FirstObserved), thousands(w.Observed), thousands(w.Changed), 100*float64(w.Changed)/float64(max(w.Observed, 1)))
	return nil
}
