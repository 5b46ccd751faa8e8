package lab

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/repo"
	"syncer/repo/reports"
)

// lifeSQL are rows of tables and views. at() is a time without the part that
// differs between two lives, how long each call took; minutes() a duration. All
// that happens is a quarter of an hour or more apart.
var lifeSQL = map[string]string{
	"presence_history": `
SELECT app_id, user_id, prev_state, state, platforms, at(prev_since_after), at(prev_since), at(not_before), at(observed_at)
FROM presence_history`,
	"account_history": `
SELECT app_id, user_id, prev_status, status, at(not_before), at(observed_at)
FROM account_history`,
	"presence_snapshot": `
SELECT app_id, user_id, state, platforms, at(changed_at), at(asked_at), at(since), at(since_after)
FROM presence_snapshot`,
	"account_snapshot": `
SELECT app_id, user_id, status, at(changed_at), at(asked_at)
FROM account_snapshot`,
	"user_failure": `
SELECT app_id, kind, user_id, code, at(first_at), at(last_at), times, at(known_at)
FROM user_failure`,
	"presence_day": `
SELECT app_id, user_id, day, minutes(online_seconds), sessions, at(first_online), at(last_online)
FROM presence_day`,
	"sync_run": `
SELECT app_id, kind, tick, status, complete, users, changed, failed, removed, at(observed_from), at(observed_until), known_users, known_hash
FROM sync_run`,
	"observation_gap": `
SELECT app_id, kind, at(started_at), at(ended_at), at(last_seen_from), at(next_seen_by)
FROM observation_gap`,
	"presence_session": `
SELECT app_id, user_id, at(started_after), at(started_at), at(ended_after), at(ended_at), minutes(known_seconds), minutes(estimated_seconds), ended_by
FROM presence_session`,
	"presence_daily": `
SELECT app_id, user_id, day, minutes(online_seconds), sessions, at(first_online), at(last_online)
FROM presence_daily('2026-03-02', '2026-03-05', 'Europe/Berlin')`,
	"presence_current": `
SELECT app_id, user_id, state, at(since_after), at(since), at(last_checked_at), stale
FROM presence_current`,
	"account_current": `
SELECT app_id, user_id, status, at(since), at(last_checked_at), stale
FROM account_current`,
}

const lifeFunctionsSQL = `
CREATE FUNCTION pg_temp.at(t timestamptz) RETURNS text LANGUAGE sql AS $$
    SELECT to_char(date_bin('10 minutes', t, '2026-03-02'), 'DD HH24:MI')
$$;
CREATE FUNCTION pg_temp.minutes(seconds double precision) RETURNS text LANGUAGE sql AS $$
    SELECT (round(seconds / 600) * 10)::text
$$`

// add adds all rows and all reports, under names that end in when.
func (l life) add(t *testing.T, conn *pgx.Conn, store *repo.Store, start time.Time, when string) {
	t.Helper()
	run(t, conn, `DROP FUNCTION IF EXISTS pg_temp.at; DROP FUNCTION IF EXISTS pg_temp.minutes;`+lifeFunctionsSQL)
	for what, sql := range lifeSQL {
		for _, call := range []string{"at(", "minutes("} {
			sql = strings.ReplaceAll(sql, call, "pg_temp."+call)
		}
		found := lines(t, conn, sql)
		slices.Sort(found)
		l[what+when] = found
	}
	must(t, reports.Read(t.Context(), store.DB, func(r *reports.Reader) error {
		l.report(t, r, start, when)
		return nil
	}))
}

// report adds what syncer report reads.
func (l life) report(t *testing.T, r *reports.Reader, start time.Time, when string) {
	t.Helper()
	ctx := t.Context()
	app := "tencent"
	for _, span := range []reports.Span{
		{From: start, To: start.Add(72 * time.Hour), Location: time.UTC},
		{From: start.Add(30 * time.Hour), To: start.Add(60 * time.Hour), Location: time.FixedZone("Etc/GMT-1", 3600), App: &app},
	} {
		when := when
		if span.App != nil {
			when += " of one app"
		}
		byDay, overall, err := r.Sessions(ctx, span)
		l.rows(t, "report sessions by day"+when, byDay, err)
		l.rows(t, "report sessions"+when, overall, err)
		longest, err := r.LongestSessions(ctx, span, 1_000_000)
		l.rows(t, "report longest sessions"+when, longest, err)
		active, err := r.ActiveUsers(ctx, span)
		l.rows(t, "report active users"+when, active, err)
		concurrency, err := r.Concurrency(ctx, span, []time.Time{span.From, span.From.Add(12 * time.Hour), span.From.Add(24 * time.Hour)})
		l.rows(t, "report concurrency"+when, concurrency, err)
		platforms, err := r.Platforms(ctx, span)
		l.rows(t, "report platforms"+when, platforms, err)
		devices, err := r.Devices(ctx, span)
		l.rows(t, "report devices"+when, devices, err)
		accounts, err := r.Accounts(ctx, span)
		l.rows(t, "report accounts"+when, accounts, err)
		coverage, err := r.AccountCoverage(ctx, span)
		l.rows(t, "report account coverage"+when, coverage, err)
		gaps, err := r.Gaps(ctx, span)
		l.rows(t, "report gaps"+when, gaps, err)
		observed, err := r.Coverage(ctx, span)
		l.rows(t, "report coverage"+when, observed, err)
	}
}

// rows adds the rows of a report as JSON, without the parts that differ between
// two lives.
func (l life) rows(t *testing.T, what string, rows any, err error) {
	t.Helper()
	must(t, err)
	text, err := json.Marshal(rows)
	must(t, err)
	var all []map[string]any
	must(t, json.Unmarshal(text, &all))
	for _, row := range all {
		for name, value := range row {
			switch v := value.(type) {
			case string:
				if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
					row[name] = at.Truncate(10 * time.Minute)
				}
			case float64:
				if strings.Contains(name, "seconds") {
					row[name] = math.Round(v / 600)
				} else {
					row[name] = math.Round(v*100) / 100
				}
			}
		}
		line, err := json.Marshal(row)
		must(t, err)
		l[what] = append(l[what], string(line))
	}
	slices.Sort(l[what])
}
