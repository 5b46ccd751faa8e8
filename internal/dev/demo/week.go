package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"syncer/internal/dev/lab"
)

const (
	weekUsers = 1000
	weekEvery = 20 * time.Minute // between two sweeps
	day       = 24 * time.Hour
)

// trouble is what goes wrong in the simulated days, each of its time.
type trouble struct {
	from, until time.Duration // since the beginning
	begin       func(*lab.Simulation) error
	note        string
}

// troubles happen in the middle and on the last day.
func troubles(days int) []trouble {
	last := time.Duration(days-1) * day
	return []trouble{
		{last/2 + 9*time.Hour, last/2 + 14*time.Hour, (*lab.Simulation).Refuse, "5 h refused"},
		{last + 17*time.Hour, last + 18*time.Hour, (*lab.Simulation).LoseGateway, "1 h gateway lost"},
	}
}

// week lets days go by on a clock that jumps, and shows what reports make of them.
func (d *demo) week(ctx context.Context) error {
	d.screen.heading("Days that take seconds")
	d.screen.say("%d days go by, on a clock that jumps from sweep to sweep, one every twenty minutes, through the same engine, "+
		"clients and database. On one day both APIs refuse the admin for five hours. On the last, OpenIM has lost a "+
		"gateway for an hour and says, with success, that everybody is offline: its other API contradicts.\n", d.days)
	url, err := d.weekDatabase(ctx)
	if err != nil {
		return err
	}
	start := time.Now().UTC().Truncate(weekEvery).Add(-time.Duration(d.days) * day)
	s, err := lab.Open(ctx, lab.Config{
		URL: url, Start: start.Add(-time.Second), Every: weekEvery, Log: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	return errors.Join(d.liveThrough(ctx, s, start), s.Close())
}

// weekDatabase makes a database of the week's own, and a configuration for it.
func (d *demo) weekDatabase(ctx context.Context) (url string, err error) {
	if _, err := d.db.Exec(ctx, "CREATE DATABASE week"); err != nil {
		return "", fmt.Errorf("make the week's database: %w", err)
	}
	url = d.cluster.URL("week")
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	d.weekDB = db
	d.atEnd(func() error { return db.Close(context.WithoutCancel(ctx)) })
	if _, err := db.Exec(ctx, usersTableSQL); err != nil {
		return "", fmt.Errorf("make the week's users table: %w", err)
	}
	if _, err := db.Exec(ctx, signUpSQL, 1, weekUsers); err != nil {
		return "", fmt.Errorf("fill the week's users table: %w", err)
	}
	config := strings.Replace(d.config(), "database_url", "week_url", 1)
	if err := os.WriteFile(filepath.Join(d.dir, "week.toml"), []byte(config), 0o600); err != nil {
		return "", err
	}
	return url, os.WriteFile(filepath.Join(d.dir, "week_url"), []byte(url), 0o600)
}

// liveThrough sweeps tick by tick and draws a line for each calendar day: the first
// and the last are not whole.
func (d *demo) liveThrough(ctx context.Context, s *lab.Simulation, start time.Time) error {
	fmt.Fprintf(d.screen.out, "  %-12s%-26s%-26s%7s\n", "day (UTC)", "tencent: online, by hour", "openim", "changed")
	end := start.Add(time.Duration(d.days) * day)
	tick := start
	for from := start.Truncate(day); tick.Before(end); from = from.Add(day) {
		if _, err := s.Accounts(ctx, tick.Add(weekEvery/2)); err != nil {
			return err
		}
		var changed int64
		var notes []string
		for tick.Before(end) && tick.Before(from.Add(day)) {
			tick = tick.Add(weekEvery)
			note, err := d.goWrong(s, tick.Sub(start))
			if err != nil {
				return err
			}
			runs, err := s.Presence(ctx, tick)
			if err != nil {
				return err
			}
			for _, run := range runs {
				changed += run.Changed
				if run.Error != "" && note == "" {
					return fmt.Errorf("the sweep of %s failed: %s", tick.Format(time.DateTime), run.Error)
				}
			}
			if note != "" && (len(notes) == 0 || notes[len(notes)-1] != note) {
				notes = append(notes, note)
			}
		}
		if err := d.drawDay(ctx, s, from, changed, notes); err != nil {
			return err
		}
	}
	return nil
}

// goWrong lets the backends have the trouble of a time, if there is one, and
// says what it is.
func (d *demo) goWrong(s *lab.Simulation, since time.Duration) (note string, err error) {
	s.Recover()
	for _, t := range troubles(d.days) {
		if since >= t.from && since < t.until {
			return t.note, t.begin(s)
		}
	}
	return "", nil
}

const onlineByHourSQL = `
SELECT floor(extract(epoch FROM c.observed_at - $2) / 3600)::int, avg(c.users)::float8
FROM syncer.presence_count AS c
WHERE c.app_id = $1 AND c.state = 'online' AND c.platform = 'all'
  AND c.observed_at >= $2 AND c.observed_at < $2 + interval '1 day'
GROUP BY 1`

// drawDay draws the users online in each hour of a day; an hour in which nobody
// looked is left blank.
func (d *demo) drawDay(ctx context.Context, s *lab.Simulation, from time.Time, changed int64, notes []string) error {
	line := fmt.Sprintf("  %-12s", from.Format("Mon 2 Jan"))
	for _, app := range s.Apps {
		rows, err := d.weekDB.Query(ctx, onlineByHourSQL, app.ID, from)
		if err != nil {
			return fmt.Errorf("read the day: %w", err)
		}
		hours := []rune(strings.Repeat(" ", 24))
		var hour int
		var online float64
		_, err = pgx.ForEachRow(rows, []any{&hour, &online}, func() error {
			const full = 0.3 * weekUsers
			bars := []rune("▁▂▃▄▅▆▇█")
			if hour < len(hours) {
				hours[hour] = bars[min(int(online/full*float64(len(bars))), len(bars)-1)]
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the day: %w", err)
		}
		line += string(hours) + "  "
	}
	_, err := fmt.Fprintln(d.screen.out, strings.TrimRight(fmt.Sprintf("%s%7s  %s", line, thousands(changed), strings.Join(notes, "; ")), " "))
	return err
}

// reports shows what syncer report makes of the week.
func (d *demo) reports(ctx context.Context) error {
	d.screen.heading("Reports")
	d.screen.say("What was not observed is left blank, and counts as neither online nor offline.")
	span := fmt.Sprintf("-%dd", d.days)
	for _, args := range [][]string{
		{"report", "concurrency", "--app", "tencent", "--from", span},
		{"report", "active-users", "--app", "openim", "--from", span},
		{"report", "gaps", "--from", span},
	} {
		if err := d.mustRunSyncer(ctx, append(args, "--config", "week.toml")...); err != nil {
			return err
		}
	}
	if err := d.mustRunSyncer(ctx, "report", "all", "--from", span, "--format", "html", "--output", "report.html", "--config", "week.toml"); err != nil {
		return err
	}
	page, err := d.keepPage()
	if err != nil {
		return fmt.Errorf("keep the page of the reports: %w", err)
	}
	d.screen.say("The page stays, and needs no network; open it in a browser: %s", page)
	return nil
}

// keepPage copies the page out of the demo's folder and returns its path.
func (d *demo) keepPage() (string, error) {
	html, err := os.ReadFile(filepath.Join(d.dir, "report.html"))
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs(d.page)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, html, 0o644)
}
