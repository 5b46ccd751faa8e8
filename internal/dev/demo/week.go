package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"syncer/internal/dev/lab"
)

const (
	weekUsers = 1000
	weekEvery = 20 * time.Minute // between two sweeps
	day       = 24 * time.Hour
)

// trouble is a time in which the providers misbehave.
type trouble struct {
	from, until time.Duration // since the beginning
	begin       func(*lab.Simulation) error
	note        string
}

// troubles returns what happens in the middle and on the last day.
func troubles(days int) []trouble {
	last := time.Duration(days-1) * day
	return []trouble{
		{last/2 + 9*time.Hour, last/2 + 14*time.Hour, (*lab.Simulation).Refuse, "both APIs refuse the admin"},
		{last + 17*time.Hour, last + 18*time.Hour, (*lab.Simulation).LoseGateway, "OpenIM has lost its gateway"},
	}
}

// week simulates days on a clock that jumps, for the reports.
func (d *demo) week(ctx context.Context) error {
	d.screen.heading("Days that take seconds")
	d.screen.say("%d days pass, on a clock that jumps from sweep to sweep, one every twenty minutes, through the same engine, "+
		"clients and database. On one day both APIs refuse the admin for five hours. On the last, OpenIM has lost a "+
		"gateway for an hour and says, with success, that everyone is offline: its other API contradicts.", d.days)
	if err := d.exec(ctx, "postgres", "CREATE DATABASE week"); err != nil {
		return err
	}
	url := d.cluster.URL("week")
	config := strings.Replace(d.config(), "database_url", "week_url", 1)
	if err := d.writeFiles("week.toml", config, "week_url", url); err != nil {
		return err
	}
	start := time.Now().UTC().Truncate(weekEvery).Add(-time.Duration(d.days) * day)
	s, err := lab.Open(ctx, lab.Config{URL: url, Users: weekUsers, Start: start.Add(-time.Second), Every: weekEvery, Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	return errors.Join(d.liveThrough(ctx, s, start), s.Close())
}

// liveThrough sweeps tick by tick.
func (d *demo) liveThrough(ctx context.Context, s *lab.Simulation, start time.Time) error {
	end := start.Add(time.Duration(d.days) * day)
	var trouble string
	fmt.Fprintln(d.screen.out)
	for tick := start; tick.Before(end); {
		if tick.Sub(start)%day == 0 {
			fmt.Fprintf(d.screen.out, "  %s\n", tick.Format("Mon 2 Jan"))
			if _, err := s.Accounts(ctx, tick.Add(weekEvery/2)); err != nil {
				return err
			}
		}
		tick = tick.Add(weekEvery)
		note, err := d.misbehave(s, tick.Sub(start))
		if err != nil {
			return err
		}
		if note != trouble && note != "" {
			fmt.Fprintf(d.screen.out, "  %s: %s\n", tick.Format("Mon 2 Jan 15:04"), note)
		}
		trouble = note
		runs, err := s.Presence(ctx, tick)
		if err != nil {
			return err
		}
		for _, run := range runs {
			if run.Error != "" && trouble == "" {
				return fmt.Errorf("the sweep of %s failed: %s", tick.Format(time.DateTime), run.Error)
			}
		}
	}
	return nil
}

// misbehave makes the providers misbehave as they do at a time since the
// beginning, and returns a note of it.
func (d *demo) misbehave(s *lab.Simulation, since time.Duration) (note string, err error) {
	s.Recover()
	for _, t := range troubles(d.days) {
		if since >= t.from && since < t.until {
			return t.note, t.begin(s)
		}
	}
	return "", nil
}

// reports shows the reports about the week.
func (d *demo) reports(ctx context.Context) error {
	d.screen.heading("Reports")
	d.screen.say("Time without observation is left blank; it counts as neither online nor offline.")
	span := fmt.Sprintf("-%dd", d.days)
	for _, args := range [][]string{
		{"report", "concurrency", "--app", "tencent", "--from", span},
		{"report", "active-users", "--app", "openim", "--from", span},
		{"report", "gaps", "--from", span},
		{"report", "all", "--from", span, "--format", "html", "--output", "report.html"},
	} {
		if err := d.command(ctx, append(args, "--config", "week.toml")...); err != nil {
			return err
		}
	}
	page, err := d.keepPage()
	if err != nil {
		return fmt.Errorf("keep the page of the reports: %w", err)
	}
	d.screen.say("The page is kept and needs no network. Open it in a browser: %s", page)
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
