package main

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// transition is a row of presence_history.
type transition struct {
	UserID     string
	App        string
	NotBefore  *time.Time
	ObservedAt time.Time
	PrevState  *string
	State      string
	Platforms  []byte
}

// Three users, two of one app and one of the other, to whom more happened than
// to most, but not too much to read; each with another story.
const historiesSQL = `
WITH story AS (
    SELECT app_id, user_id, count(*) FILTER (WHERE prev_state <> state) AS moves, count(*) AS rows,
           string_agg(state::text, ' ' ORDER BY observed_at) AS path
    FROM syncer.presence_history
    GROUP BY app_id, user_id
    HAVING count(*) BETWEEN 2 AND 4
), different AS (
    SELECT DISTINCT ON (app_id, path) *
    FROM story
    ORDER BY app_id, path, md5(app_id || user_id) -- not the same users in both apps
), ranked AS (
    SELECT app_id, user_id, row_number() OVER (PARTITION BY app_id ORDER BY moves DESC, rows DESC, user_id) AS rank
    FROM different
)
SELECT h.user_id, a.name AS app, h.not_before, h.observed_at,
       h.prev_state::text AS prev_state, h.state::text AS state, h.platforms
FROM ranked AS r
JOIN syncer.app AS a USING (app_id)
JOIN syncer.presence_history AS h USING (app_id, user_id)
WHERE r.rank <= CASE a.provider WHEN 'tencent' THEN 2 ELSE 1 END
ORDER BY a.app_id, r.rank, h.observed_at`

func (d *demo) showHistories(ctx context.Context) error {
	d.screen.heading("Three users' stories, in presence_history")
	d.screen.say("Asking now and then sees samples, not events. So each row says between which two moments the change " +
		"must have happened.")
	d.screen.gap()
	transitions, err := query[transition](ctx, d, historiesSQL)
	if err != nil {
		return err
	}
	columns := table.Row{"user", "app", "not before", "not after", "from", "to", "platforms"}
	t := d.screen.table(len(columns)+1, columns...)
	t.SetColumnConfigs([]table.ColumnConfig{{Number: len(columns), WidthMax: 24, WidthMaxEnforcer: text.WrapSoft}})
	for i, h := range transitions {
		user, app := h.UserID, h.App
		if i > 0 && user == transitions[i-1].UserID && app == transitions[i-1].App {
			user, app = "", "" // stands above
		} else if i > 0 {
			t.AppendSeparator()
		}
		t.AppendRow(table.Row{user, app, instant(h.NotBefore), instant(&h.ObservedAt), from(h.PrevState), h.State, devices(h.Platforms)})
	}
	t.Render()
	return nil
}

// instant writes a time of day to the millisecond; nil is before the first look.
func instant(at *time.Time) string {
	if at == nil {
		return ""
	}
	return at.UTC().Format("15:04:05.000")
}

func from(state *string) string {
	if state == nil {
		return "(first seen)"
	}
	return *state
}

// devices writes what is stored as {"ios":"online","web":"push_online"} in
// words; a device that is simply online goes by its name.
func devices(stored []byte) string {
	var modes map[string]string
	if err := json.Unmarshal(stored, &modes); err != nil {
		return string(stored)
	}
	var words []string
	for _, platform := range slices.Sorted(maps.Keys(modes)) {
		switch mode := modes[platform]; mode {
		case "online":
			words = append(words, platform)
		case "push_online":
			words = append(words, platform+" (push)")
		default:
			words = append(words, platform+" ("+mode+")")
		}
	}
	return strings.Join(words, ", ")
}
