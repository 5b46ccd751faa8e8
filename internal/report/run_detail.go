package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"syncer/repo/reports"
)

// FoldedRun is a run, or the newest of several skipped ticks in a row.
type FoldedRun struct {
	reports.RunRow
	ticks int
	since time.Time // of the oldest
}

// RunsSections lists at least one run, in the given order. The reasons stand below the
// table, where no terminal is too narrow for them.
func RunsSections(rows []FoldedRun) []Section {
	list := Section{Title: fmt.Sprintf("The latest runs, times in %s", rows[0].StartedAt.Location())}
	t := Table{Columns: columns(">run", "began", "app", "kind", "job", "status", ">took", ">users", ">changed", ">failed")}
	reasons := Section{Title: "Why"}
	for _, f := range rows {
		row, status := f.RunRow, f.Status
		if f.ticks > 1 {
			status = fmt.Sprintf("%s ×%d", status, f.ticks)
		}
		t.Rows = append(t.Rows, []string{fmt.Sprint(row.RunID), instant(row.StartedAt), row.App, row.Kind, row.Job, status, length(row.Seconds),
			Count(row.Users), Count(row.Changed), Count(row.Failed)})
		reason := why(row)
		if row.Error != nil {
			reason = *row.Error
		}
		if f.ticks > 1 {
			reason += ", since " + instant(f.since)
		}
		if reason != "" {
			reasons.say(fmt.Sprint(row.RunID), "%s", reason)
		}
	}
	list.Tables = []Table{t}
	if len(reasons.Facts) == 0 {
		return []Section{list}
	}
	return []Section{list, reasons}
}

// Unfolded returns each run for itself.
func Unfolded(rows []reports.RunRow) []FoldedRun {
	all := make([]FoldedRun, len(rows))
	for i, row := range rows {
		all[i] = FoldedRun{RunRow: row, ticks: 1}
	}
	return all
}

// Fold folds the skipped ticks of each job that follow each other, newest first. No
// other run of the job may be missing between them.
func Fold(rows []reports.RunRow) []FoldedRun {
	type job struct{ app, kind, name string }
	var folded []FoldedRun
	latest := map[job]int{} // the place in folded
	for _, row := range rows {
		of := job{row.App, row.Kind, row.Job}
		if at, ok := latest[of]; ok && folded[at].Status == "skipped" && row.Status == "skipped" {
			folded[at].ticks++
			folded[at].since = row.StartedAt
			continue
		}
		latest[of] = len(folded)
		folded = append(folded, FoldedRun{RunRow: row, ticks: 1})
	}
	return folded
}

// WriteRunsJSON writes runs as one object.
func WriteRunsJSON(w io.Writer, rows []reports.RunRow) error {
	return writeJSON(w, object{{"runs", rows}})
}

// triggers and endings describe why a run was started and how it ended.
var (
	triggers = map[string]string{
		"cron":     "its tick came",
		"catch_up": "its tick fell while nothing was up",
		"backfill": "by hand",
		"hint":     "hooks named users to look at",
	}
	endings = map[string]string{
		"running":   "it is going",
		"succeeded": "every user has an answer",
		"partial":   "it went through, but some users failed, had their answers rejected or were held back from removal",
		"failed":    "it did not go through",
		"cancelled": "it was stopped",
		"skipped":   "the run before was still going at its tick",
	}
)

// RunSections returns everything about a run.
func RunSections(d reports.RunDetail, limit int) []Section {
	s := Section{Title: fmt.Sprintf("Run %d: %s of app %s (%s), times in %s", d.RunID, d.Kind, d.App, d.Provider, d.StartedAt.Location())}
	ending := endings[d.Status]
	if d.Trigger == "hint" {
		ending = "it adds up the work of one hour on hints, by all processes"
	}
	s.say("status", "%s: %s", d.Status, ending)
	if d.Error != nil {
		s.say("error", "%s", *d.Error)
	}
	s.say("job", "%s (%s: %s)", d.Job, d.Trigger, triggers[d.Trigger])
	if d.Tick != nil {
		s.say("tick", "%s", instant(*d.Tick))
	}
	if d.Status == "skipped" {
		return []Section{s}
	}
	if d.FinishedAt == nil {
		s.say("time", "since %s, for %s so far", instant(d.StartedAt), length(d.Seconds))
	} else {
		s.say("time", "%s to %s, %s", instant(d.StartedAt), instant(*d.FinishedAt), length(d.Seconds))
	}
	s.say("users", "%s asked about, %s changed, %s failed", Count(d.Users), Count(d.Changed), Count(d.Failed))
	if d.Listed {
		s.say("", "It was limited to a list of users.")
	}
	var seen []string
	for _, row := range d.Seen {
		seen = append(seen, Count(row.Users)+" "+row.State)
	}
	if len(seen) > 0 {
		s.say("seen", "%s", strings.Join(seen, ", "))
	}
	s.say("calls", "%s, of which %s repeated one that had failed", Count(d.Calls), Count(d.Retries))
	if d.Trigger == "hint" {
		s.say("", "Hints never go through all users: gaps, removals and counts are those of sweeps.")
	} else {
		s.complete(d)
	}
	s.suspect(d)
	for _, left := range d.Left {
		s.left(left)
	}
	for _, gap := range d.Gaps {
		s.say("gap", "It ended a gap: nobody had looked from %s to %s, for %s.", instant(gap.StartedAt), instant(gap.EndedAt), length(gap.EndedAt.Sub(gap.StartedAt).Seconds()))
	}
	s.ranges(d, limit)
	if d.Failed > 0 {
		s.failures(d)
	}
	return []Section{s}
}

func (s *Section) complete(d reports.RunDetail) {
	switch {
	case d.Complete:
		s.say("complete", "yes: every user who does not fail was seen after its beginning")
	case d.Status == "running":
		s.say("complete", "not yet")
	case d.Listed:
		s.say("complete", "no: it was limited to a list")
	case d.RejectedAnswers > 0:
		s.say("complete", "no: answers were rejected")
	case d.HeldBack > 0:
		s.say("complete", "no: %s are missing from the users table and keep what was known before", some(d.HeldBack, "user"))
	default:
		s.say("complete", "no: the users whom it did not come to keep what was known before")
	}
	if d.PrevCompleteAt != nil {
		s.say("", "The complete run before it began at %s.", instant(*d.PrevCompleteAt))
	}
}

func (s *Section) suspect(d reports.RunDetail) {
	switch {
	case d.Suspect:
		s.say("suspect", "%s so far, of which too many users were offline at once; some wait for their recheck", some(d.SuspectPages, "page"))
	case d.RejectedAnswers > 0:
		s.say("suspect", "%s, of which too many users were offline at once; the answers about %s were rejected, and the last known values stay",
			some(d.SuspectPages, "page"), some(d.RejectedAnswers, "user"))
	case d.SuspectPages > 0:
		s.say("suspect", "%s, of which too many users were offline at once, until their recheck", some(d.SuspectPages, "page"))
	}
}

func (s *Section) left(left reports.LeftRow) {
	what := map[string]string{
		"removed":  "had left the users table",
		"rejected": "had been rejected by the API for longer than max_gap, so that nothing is known any more",
	}[left.State]
	examples := strings.Join(left.Examples, ", ")
	if int64(len(left.Examples)) < left.Users {
		examples += ", …"
	}
	s.say(left.State, "%s, who %s: %s", some(left.Users, "user"), what, examples)
}

func (s *Section) ranges(d reports.RunDetail, limit int) {
	if len(d.Groups) == 0 {
		if d.Status == "succeeded" || d.Status == "partial" {
			s.say("ranges", "dropped: those of a run that went through are not kept")
		} else {
			s.say("ranges", "none: they were not cut, or not kept (those of a run that did not go through are dropped after 7 days)")
		}
		return
	}
	var groups []string
	for _, g := range d.Groups {
		groups = append(groups, fmt.Sprintf("%s %s (%s so far)", Count(g.Ranges), g.Status, some(g.Users, "user")))
	}
	planned := ""
	if !d.Planned {
		planned = "; not all are cut yet"
	}
	s.say("ranges", "%s%s", strings.Join(groups, ", "), planned)
	if len(d.Ranges) == 0 {
		return
	}
	t := Table{Title: "Ranges that are at work, suspect, or have failed", Columns: columns(">range", "status", "keys", ">attempt", ">users", "what")}
	for _, r := range d.Ranges {
		t.Rows = append(t.Rows, []string{fmt.Sprint(r.No), r.Status, keys(r), fmt.Sprint(r.Attempt), Count(r.Users), shorten(rangeState(r), 100)})
	}
	s.Tables = append(s.Tables, t)
	if len(d.Ranges) == limit {
		s.Notes = append(s.Notes, fmt.Sprintf("Only the first %d are listed; all are in sync_range.", limit))
	}
}

// keys describes the slice of the users table that a range covers.
func keys(r reports.RangeRow) string {
	switch {
	case r.Lower == nil && r.Upper == nil:
		return "all"
	case r.Lower == nil:
		return "up to " + shorten(*r.Upper, 20)
	case r.Upper == nil:
		return "after " + shorten(*r.Lower, 20)
	default:
		return "after " + shorten(*r.Lower, 20) + " up to " + shorten(*r.Upper, 20)
	}
}

func rangeState(r reports.RangeRow) string {
	switch {
	case r.RejectedAnswers > 0:
		return fmt.Sprintf("rejected after %d suspect answers: %s", r.SuspectAnswers, *r.Error)
	case r.Error != nil:
		return *r.Error
	case r.SuspectAnswers > 0 && r.RecheckAfter != nil && r.Status == "pending":
		return fmt.Sprintf("recheck after %s, suspect answers so far: %d", instant(*r.RecheckAfter), r.SuspectAnswers)
	case r.SuspectAnswers > 0:
		return fmt.Sprintf("recheck, suspect answers so far: %d", r.SuspectAnswers)
	case r.Owner != nil && r.BeatAt != nil:
		return fmt.Sprintf("%s, last sign of life %s", *r.Owner, instant(*r.BeatAt))
	default:
		return ""
	}
}

// failures lists the users that fail now; past failures are not stored.
func (s *Section) failures(d reports.RunDetail) {
	if len(d.Failures) == 0 {
		s.Notes = append(s.Notes, "Who failed is not recorded any more: those users have succeeded since, or have left.")
		return
	}
	t := Table{Title: "Users that fail now, by code", Columns: columns(">users", "code", "since", "such as", "message")}
	for _, f := range d.Failures {
		user := f.Example
		if user == "" {
			user = "(no id)"
		}
		t.Rows = append(t.Rows, []string{Count(f.Users), f.Code, instant(f.FirstAt), user, shorten(f.Message, 100)})
	}
	s.Tables = append(s.Tables, t)
	if !d.Newest {
		s.Notes = append(s.Notes, "There are newer runs: who failed in this one and has succeeded since is not among them.")
	}
}
