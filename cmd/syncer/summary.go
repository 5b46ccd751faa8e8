package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"syncer/internal/report"
	"syncer/repo"
)

// runSummary is one run in the summary of a backfill, as --json prints it.
type runSummary struct {
	App             string  `json:"app"`
	Kind            string  `json:"kind"`
	RunID           int64   `json:"run_id,omitempty"`
	Status          string  `json:"status"`
	Users           int64   `json:"users"`
	Changed         int64   `json:"changed"`
	Failed          int64   `json:"failed"`
	Removed         int64   `json:"removed,omitempty"`          // left the users table
	HeldBack        int64   `json:"held_back,omitempty"`        // missing there, but not removed
	RejectedAnswers int64   `json:"rejected_answers,omitempty"` // of Failed: rejected as suspect
	Calls           int64   `json:"calls"`
	Retries         int64   `json:"retries"`
	Seconds         float64 `json:"seconds"`
	UsersPerSec     float64 `json:"users_per_second"`
	QuotaUsed       float64 `json:"quota_used"` // share of the calls that the rate allows
	Error           string  `json:"error,omitempty"`
	Note            string  `json:"note,omitempty"`
}

func (s *sweep) summary(now time.Time) runSummary {
	r := runSummary{App: s.app.Name, Kind: string(s.kind), Status: "not started", Note: s.note}
	if !s.begun || s.run.Status == repo.RunRunning {
		if s.err != nil && !errors.Is(s.err, context.Canceled) {
			r.Error = s.err.Error()
		}
	}
	if !s.begun {
		return r
	}
	run := s.run
	r.RunID, r.Status = run.ID, string(run.Status)
	r.Users, r.Changed, r.Failed, r.Calls, r.Retries = run.Users, run.Changed, run.Failed, run.Calls, run.Retries
	r.Removed, r.HeldBack, r.RejectedAnswers = run.Removed, run.HeldBack, run.RejectedAnswers
	r.Seconds = run.Duration(now).Seconds()
	if r.Seconds > 0 {
		r.UsersPerSec = float64(run.Users) / r.Seconds
		r.QuotaUsed = float64(run.Calls) / (r.Seconds * float64(s.config.Connection().Rate(s.kind)))
	}
	if run.Error != "" {
		r.Error = run.Error
	}
	return r
}

// report prints the summary and returns the exit code as an error.
func (p *program) report(s *system, sweeps []*sweep, asJSON bool, resume string) error {
	var summaries []runSummary
	for _, sw := range sweeps {
		summaries = append(summaries, sw.summary(s.store.Now()))
	}
	if asJSON {
		encoder := json.NewEncoder(p.stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(map[string]any{"runs": summaries}); err != nil {
			return fmt.Errorf("print the summary: %w", err)
		}
	} else {
		p.printSummary(summaries)
		p.printRemarks(s, sweeps)
	}
	return verdict(sweeps, resume)
}

func (p *program) printSummary(summaries []runSummary) {
	t := newTable(p.stdout, "app", "kind", "run", "status", "users", "changed", "failed", "calls", "retries", "duration", "users/s", "quota used")
	var right []table.ColumnConfig
	for column := 5; column <= 12; column++ {
		right = append(right, table.ColumnConfig{Number: column, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	for _, r := range summaries {
		t.AppendRow(table.Row{r.App, r.Kind, r.RunID, r.Status, report.Count(r.Users), report.Count(r.Changed), report.Count(r.Failed),
			report.Count(r.Calls), report.Count(r.Retries), roughly(time.Duration(r.Seconds * float64(time.Second))),
			report.Count(int64(r.UsersPerSec)), fmt.Sprintf("%.0f %%", 100*r.QuotaUsed)})
	}
	t.Render()
}

// printRemarks prints below the table what the operator should know.
func (p *program) printRemarks(s *system, sweeps []*sweep) {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	for _, sw := range sweeps {
		summary := sw.summary(s.store.Now())
		if summary.Note != "" {
			p.say("\n%s: %s", sw.name(), summary.Note)
		}
		if summary.Error != "" {
			p.say("\n%s: %s", sw.name(), paragraph(summary.Error))
		}
		if sw.begun && summary.Users == 0 && (sw.run.Status == repo.RunSucceeded) {
			p.say("\n%s: users table %s has no rows within [users] where; no user was queried", sw.name(), sw.app.Users.Name())
		}
		if summary.Removed > 0 {
			p.say("\n%s: %s users have left the users table since the previous run", sw.name(), report.Count(summary.Removed))
		}
		if summary.Failed > summary.RejectedAnswers {
			p.printFailures(ctx, s, sw)
		}
	}
}

func (p *program) printFailures(ctx context.Context, s *system, sw *sweep) {
	groups, err := s.store.FailureGroups(ctx, sw.app.ID, sw.kind)
	if err != nil {
		s.log.Warn().Err(err).Msg("could not read why users failed")
		return
	}
	p.say("\n%s: failed users, see %s.user_failure", sw.name(), s.store.Schema())
	for _, g := range groups {
		such := ""
		if g.Varied {
			such = ", such as"
		}
		p.say("  %s × %s%s: %s", report.Count(g.Users), g.Code, such, g.Message)
	}
}

// verdict returns the exit code of the worst run as an error. resume is the command that
// continues the backfill.
func verdict(sweeps []*sweep, resume string) error {
	var stopped, failed []string
	partial, rejected, heldBack := false, false, false
	var useless []string // every user failed
	for _, s := range sweeps {
		switch {
		case s.begun && s.run.Status == repo.RunSucceeded:
		case s.begun && s.run.Status == repo.RunPartial:
			partial = true
			rejected = rejected || s.run.RejectedAnswers > 0
			heldBack = heldBack || s.run.HeldBack > 0
			if s.run.Failed >= s.run.Users {
				useless = append(useless, s.name())
			}
		case errors.Is(s.err, context.Canceled):
			stopped = append(stopped, s.name())
		default:
			failed = append(failed, s.name())
		}
	}
	switch {
	case len(failed) > 0:
		return &exitError{code: exitFailed, err: fmt.Errorf("not done: %s; after correcting the cause, continue with: %s", strings.Join(failed, ", "), resume)}
	case len(stopped) > 0:
		return &exitError{code: exitFailed, err: fmt.Errorf("stopped before the end: %s; continue with: %s", strings.Join(stopped, ", "), resume)}
	case rejected:
		return &exitError{code: exitPartial, err: errors.New("done, but suspect answers were rejected: see above; sweep again when the backend has recovered")}
	case heldBack:
		return &exitError{code: exitPartial, err: errors.New("done, but too many users are missing from the users table, and no user was removed: see above")}
	case len(useless) > 0:
		return &exitError{code: exitPartial, err: fmt.Errorf("done, but every user of %s failed: see above", strings.Join(useless, ", "))}
	case partial:
		return &exitError{code: exitPartial, err: errors.New("done, but some users failed")}
	default:
		return nil
	}
}
