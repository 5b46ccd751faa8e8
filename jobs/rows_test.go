package jobs

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
)

// kindTables are the tables of a kind and what the simulator calls it. value is
// SQL for what both hold: the state, and the platforms in one spelling.
type kindTables struct {
	kind              imclient.Kind
	snapshot, history string
	value, prev       string
	served            map[imclient.Provider]imsim.Kind
}

var (
	presenceTables = kindTables{
		kind: imclient.KindPresence, snapshot: "syncer.presence_snapshot", history: "syncer.presence_history",
		value: `state::text || ' ' || platforms::text`, prev: "coalesce(prev_state::text, '')",
		served: map[imclient.Provider]imsim.Kind{imclient.ProviderTencent: imsim.TencentPresence, imclient.ProviderOpenIM: imsim.OpenIMPresence},
	}
	accountTables = kindTables{
		kind: imclient.KindAccounts, snapshot: "syncer.account_snapshot", history: "syncer.account_history",
		value: "status::text", prev: "coalesce(prev_status::text, '')",
		served: map[imclient.Provider]imsim.Kind{imclient.ProviderTencent: imsim.TencentAccounts, imclient.ProviderOpenIM: imsim.OpenIMAccounts},
	}
	bothTables = []kindTables{presenceTables, accountTables}
)

// servedValue spells a served value as kindTables.value does: jsonb has spaces
// and sorts keys by length, then by bytes.
func servedValue(t *testing.T, v imsim.Value) string {
	t.Helper()
	if v.Platforms == "" {
		return v.State
	}
	var platforms map[string]string
	if err := json.Unmarshal([]byte(v.Platforms), &platforms); err != nil {
		t.Fatal(err)
	}
	names := slices.SortedFunc(maps.Keys(platforms), func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	text := v.State + " {"
	for i, name := range names {
		if i > 0 {
			text += ", "
		}
		text += `"` + name + `": "` + platforms[name] + `"`
	}
	return text + "}"
}

// historyRow is one row of a history.
type historyRow struct {
	UserID, Prev, Value string
	NotBefore           *time.Time
	ObservedAt          time.Time
	RunID               int64
}

// history gives the rows of an app by user, in order.
func (w *world) history(k kindTables, appID int16) map[string][]historyRow {
	w.t.Helper()
	sql := `SELECT user_id, ` + k.prev + `, ` + k.value + `, not_before, observed_at, run_id FROM ` + k.history + ` WHERE app_id = $1 ORDER BY user_id, observed_at`
	rows := make(map[string][]historyRow)
	for _, r := range query(w, pgx.RowToStructByPos[historyRow], sql, appID) {
		rows[r.UserID] = append(rows[r.UserID], r)
	}
	return rows
}

// snapshot gives the value of each user of an app.
func (w *world) snapshot(k kindTables, appID int16) map[string]string {
	w.t.Helper()
	type row struct{ UserID, Value string }
	values := make(map[string]string)
	for _, r := range query(w, pgx.RowToStructByPos[row], `SELECT user_id, `+k.value+` FROM `+k.snapshot+` WHERE app_id = $1`, appID) {
		values[r.UserID] = r.Value
	}
	return values
}

// failing gives the code of each user of an app who has a user_failure row.
func (w *world) failing(kind imclient.Kind, appID int16) map[string]string {
	w.t.Helper()
	type row struct{ UserID, Code string }
	codes := make(map[string]string)
	for _, r := range query(w, pgx.RowToStructByPos[row], `SELECT user_id, code FROM syncer.user_failure WHERE app_id = $1 AND kind = $2`, appID, kind) {
		codes[r.UserID] = r.Code
	}
	return codes
}

// truthful checks that histories and snapshots say, of every user, exactly what
// the API served.
func (w *world) truthful(k kindTables, app *App, users []string) {
	w.t.Helper()
	want, got := make(map[string][]string), make(map[string][]string)
	wantLast := make(map[string]string)
	for _, id := range users {
		for _, v := range w.sim.Served(k.served[app.Provider], id) {
			want[id] = append(want[id], servedValue(w.t, v))
			wantLast[id] = servedValue(w.t, v)
		}
	}
	for id, rows := range w.history(k, app.ID) {
		prev := ""
		for _, r := range rows {
			got[id] = append(got[id], r.Value)
			if r.Prev != prev {
				w.t.Errorf("%s of %s: a row to %s has the previous state %q, want %q", k.kind, id, r.Value, r.Prev, prev)
			}
			prev = stateOf(r.Value)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s history of %s (-served +stored):\n%.3000s", k.kind, app.Name, diff)
	}
	if diff := cmp.Diff(wantLast, w.snapshot(k, app.ID)); diff != "" {
		w.t.Errorf("%s snapshot of %s (-served +stored):\n%.3000s", k.kind, app.Name, diff)
	}
}

// stateOf is the value without its platforms.
func stateOf(value string) string {
	state, _, _ := strings.Cut(value, " ")
	return state
}

func userIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = userID(i + 1)
	}
	return ids
}

// simPaths are the paths of what the simulator serves.
var simPaths = map[imsim.Kind]string{
	imsim.TencentPresence: imsim.PathQueryOnlineStatus, imsim.TencentAccounts: imsim.PathTencentAccounts,
	imsim.OpenIMPresence: imsim.PathOpenIMPresence, imsim.OpenIMAccounts: imsim.PathOpenIMAccounts,
}
