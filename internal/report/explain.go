package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"syncer/repo/reports"
	"syncer/repo/userstable"
)

// Explanation is what is known about one user of one app.
type Explanation struct {
	UserID, App, Provider string
	Listing               Listing
	Kinds                 []KindExplanation
}

// Listing is what the users table contains about the user.
type Listing struct {
	Table string
	Where string           // its condition; "": none
	Rows  []userstable.Row // with the id: those within the condition, else those outside
	ByKey []userstable.Row // if no row has the id: the row with that key
	// Excluded means that sweeps skip the user, who was erased.
	Excluded bool
	// NoID is the failure recorded for rows without an id.
	NoID *reports.FailureOf
	Err  error // why the table could not be read
	// OutsideErr is why rows outside of the condition could not be read.
	OutsideErr error
}

// KindExplanation is what is known about the user in one kind.
type KindExplanation struct {
	Kind string
	reports.UserStory
	Meaning string // of the failure's code; "" if unknown
	Jobs    []JobExplanation
}

// JobExplanation is when a job runs.
type JobExplanation struct {
	Name     string
	LastTick *time.Time // nil: none so far
	Next     time.Time  // zero: never
	// Overdue is a tick that should have been processed by now; zero: none.
	Overdue time.Time
	// Ahead means that the last tick is in the future.
	Ahead bool
}

// tickGrace is how late a tick may be before it counts as overdue.
const tickGrace = time.Minute

// clockGrace is how far in the future the last tick may be, because instances know the
// time only to within a round trip to the database.
const clockGrace = 5 * time.Second

// Ticks is the schedule of a job. Next returns the first tick after a time, the zero
// time if there is none.
type Ticks interface{ Next(time.Time) time.Time }

// ExplainJob explains when a job runs, in the location of now. last is its newest tick,
// nil if it had none.
func ExplainJob(name string, ticks Ticks, last *time.Time, now time.Time) JobExplanation {
	job := JobExplanation{Name: name, LastTick: last}
	from := now
	if last != nil && last.After(now.Add(clockGrace)) {
		from, job.Ahead = *last, true
	}
	if next := ticks.Next(from); !next.IsZero() {
		job.Next = next.In(now.Location())
	}
	if last != nil {
		if due := ticks.Next(*last); !due.IsZero() && due.Add(tickGrace).Before(now) {
			job.Overdue = due.In(now.Location())
		}
	}
	return job
}

// Listed reports whether sweeps include the user.
func (l Listing) Listed() bool { return len(l.Rows) > 0 && l.Rows[0].Within && l.Rows[0].Key != nil }

// InUse reports whether the kind has a job or any data about the user.
func (k KindExplanation) InUse() bool {
	return len(k.Jobs) > 0 || k.Known != nil || k.Failure != nil || k.LastClosed != nil || k.Running != nil || len(k.Changes) > 0
}

// Troubles returns the reasons why the user is not updated as it should be, the most
// important first; none if all is well.
func (e Explanation) Troubles() []string {
	if e.Listing.Excluded {
		return []string{"Sweeps skip this user, who was erased with syncer forget --exclude."}
	}
	if e.Listing.Err == nil && !e.Listing.Listed() {
		all := []string{"Sweeps do not come to this user: see users table."}
		for _, k := range e.Kinds {
			if last := k.LastClosed; k.Known != nil && last != nil && last.HeldBack > 0 {
				all = append(all, fmt.Sprintf("%s: the user is missing from the users table, but its removal is held back by run %d: %s", k.Kind, last.RunID, given(last.Error)))
			}
		}
		return all
	}
	var all []string
	for _, k := range e.Kinds {
		if k.InUse() {
			all = append(all, k.Troubles()...)
		}
	}
	return all
}

// Troubles returns the reasons why the user is not updated in this kind as it should be.
func (k KindExplanation) Troubles() []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, k.Kind+": "+fmt.Sprintf(format, args...)) }
	switch {
	case k.Failure != nil:
		say("it fails since %s with code %s.", instant(k.Failure.FirstAt), k.Failure.Code)
	case k.Known == nil && k.LastClosed == nil && k.Running == nil && len(k.Jobs) > 0:
		say("no run has begun yet: is syncer run up?")
	case k.Known == nil && k.LastComplete == nil:
		say("no run has gone through the whole users table yet.")
	case k.Known == nil:
		say("no run has come to this user yet: its row is newer than the last complete run, or was not within [users] where. The next run comes to it.")
	}
	if k.LastClosed != nil {
		all = append(all, k.lastRunTroubles()...)
	}
	for _, job := range k.Jobs {
		if job.Ahead {
			say("the last tick of job %s, %s, is still to come: the database's clock was set back, and nothing is asked until it is there again.", job.Name, instant(*job.LastTick))
		}
		if !job.Overdue.IsZero() {
			say("the tick of job %s of %s has not been dealt with: is syncer run up?", job.Name, instant(job.Overdue))
		}
	}
	if k.GapSince != nil {
		say("no run has gone through since %s, longer than max_gap: what came since counts as not observed.", instant(*k.GapSince))
	}
	return all
}

// lastRunTroubles returns what the last closed run left wrong for its users.
func (k KindExplanation) lastRunTroubles() []string {
	var text string
	switch last := k.LastClosed; {
	case last.Status == "failed":
		text = fmt.Sprintf("failed at %s: %s", instant(*last.FinishedAt), given(last.Error))
	case last.HeldBack > 0:
		text = fmt.Sprintf("is not complete, so that the user counts as seen only by the complete run before it: %s", given(last.Error))
	case last.RejectedAnswers > 0:
		text = fmt.Sprintf("rejected suspect answers about %s, who keep their last value; this may be one of them.", some(last.RejectedAnswers, "user"))
	default:
		return nil
	}
	return []string{fmt.Sprintf("%s: the last run, %d, %s", k.Kind, k.LastClosed.RunID, text)}
}

// given returns a text, "" for nil.
func given(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Sections returns the whole explanation.
func (e Explanation) Sections(now time.Time) []Section {
	head := Section{Title: fmt.Sprintf("User %s, app %s (%s), at %s (%s)", e.UserID, e.App, e.Provider, instant(now), now.Location())}
	troubles := e.Troubles()
	if len(troubles) == 0 && e.Listing.Err == nil {
		head.say("answer", "All is well: it is in the users table, and what is known of it is up to date.")
	}
	name := "answer"
	for _, trouble := range troubles {
		head.say(name, "%s", trouble)
		name = ""
	}
	head.listing(e.Listing)
	sections := []Section{head}
	for _, k := range e.Kinds {
		if k.InUse() {
			sections = append(sections, k.Section())
		} else {
			sections[0].say(k.Kind, "nothing is known, and no job asks for it")
		}
	}
	return sections
}

func (s *Section) listing(l Listing) {
	const name = "users table"
	within := ""
	if l.Where != "" {
		within = " within [users] where"
	}
	switch {
	case l.Err != nil:
		s.say(name, "cannot be read: %s", l.Err)
	case l.Listed() && len(l.Rows) == 1:
		s.say(name, "%s has it%s, with key %s", l.Table, within, *l.Rows[0].Key)
	case l.Listed():
		var keys []string
		for _, row := range l.Rows {
			keys = append(keys, given(row.Key))
		}
		s.say(name, "%s has it%s in several rows, with keys %s: it is asked about for each", l.Table, within, strings.Join(keys, ", "))
	case len(l.Rows) > 0 && l.Rows[0].Key == nil:
		s.say(name, "%s has it, but its key is NULL, and sweeps do not come to it", l.Table)
	case len(l.Rows) > 0:
		s.say(name, "%s has it, with key %s, but [users] where leaves it out: %s", l.Table, *l.Rows[0].Key, l.Where)
	case l.OutsideErr != nil:
		s.say(name, "%s does not have it within [users] where; whether it has it outside could not be seen: %s", l.Table, l.OutsideErr)
	default:
		s.say(name, "%s has no row with this user id", l.Table)
	}
	for _, row := range l.ByKey {
		s.rowWithKey(row)
	}
	if l.NoID != nil && !l.Listed() && l.Err == nil {
		s.say("", "%s", l.NoID.Message)
	}
}

// rowWithKey adds what the row says whose key is the user id that was asked for.
func (s *Section) rowWithKey(row userstable.Row) {
	outside := ""
	if !row.Within {
		outside = "; [users] where leaves it out"
	}
	if given(row.UserID) == "" {
		s.say("", "The row with this key has a NULL or empty user id, so the API cannot be asked about it%s.", outside)
	} else {
		s.say("", "The row with this key has the user id %s%s.", *row.UserID, outside)
	}
}

// Section returns the explanation of this kind.
func (k KindExplanation) Section() Section {
	s := Section{Title: strings.ToUpper(k.Kind[:1]) + k.Kind[1:]}
	s.known(k)
	if f := k.Failure; f != nil {
		s.say("failing", "since %s, with code %s: %s", instant(f.FirstAt), f.Code, f.Message)
		if k.Meaning != "" && !strings.Contains(f.Message, k.Meaning) {
			s.say("", "That means: %s", k.Meaning)
		}
		s.say("", "Recorded %s, last at %s; a failure that goes on is recorded anew once an hour.", some(f.Times, "time"), instant(f.LastAt))
	}
	for _, job := range k.Jobs {
		s.job(job)
	}
	if len(k.Jobs) == 0 {
		s.say("schedule", "no job asks for it; only syncer backfill does")
	}
	if run := k.Running; run != nil {
		s.say("going", "run %d, since %s: %s", run.RunID, instant(run.StartedAt), progress(*run, k.LastComplete))
	}
	if run := k.LastClosed; run != nil {
		line := fmt.Sprintf("run %d, %s to %s: %s", run.RunID, instant(run.StartedAt), instant(*run.FinishedAt), run.Status)
		if run.Error != nil {
			line += ": " + *run.Error
		}
		s.say("last run", "%s", line)
	} else {
		s.say("last run", "there was none")
	}
	if run := k.Hints; run != nil {
		s.say("hints", "run %d, from %s to %s: %s looked at, %s changed", run.RunID, instant(run.StartedAt), instant(*run.FinishedAt), some(run.Users, "user"), Count(run.Changed))
	}
	if len(k.Changes) > 0 {
		s.Tables = append(s.Tables, changes(k))
	}
	return s
}

func (s *Section) known(k KindExplanation) {
	known := k.Known
	if known == nil {
		line := "nothing"
		if len(k.Changes) > 0 {
			last := k.Changes[0]
			switch last.Value {
			case "removed":
				line = fmt.Sprintf("nothing: by %s it had left the users table", instant(last.ObservedAt))
			case "rejected":
				line = fmt.Sprintf("nothing: at %s the API had rejected it for longer than max_gap", instant(last.ObservedAt))
			}
		}
		s.say("known", "%s", line)
		return
	}
	line := known.Value
	if on := platforms(known.Platforms); on != "" {
		line += " on " + on
	}
	line += ", since " + instant(known.Since)
	if known.SinceAfter != nil {
		line += " (after " + instant(*known.SinceAfter) + ")"
	}
	if known.ToldAt != nil {
		line += ", at " + precise(*known.ToldAt) + " by a hook"
	}
	s.say("known", "%s", line)
	confirmed := "at or after " + instant(known.LastCheckedAt)
	switch {
	case k.Failure != nil:
		confirmed += "; since then it fails"
	case k.LastComplete != nil:
		confirmed += fmt.Sprintf("; the last run that met everybody is %d, which ended at %s", k.LastComplete.RunID, instant(*k.LastComplete.FinishedAt))
	}
	s.say("confirmed", "%s", confirmed)
	if known.Stale {
		s.say("", "Nothing is known since then: it counts as stale.")
	}
}

func (s *Section) job(job JobExplanation) {
	last := "no tick was dealt with yet"
	if job.LastTick != nil {
		last = "last tick " + instant(*job.LastTick)
	}
	if job.Next.IsZero() {
		s.say("schedule", "job %s: no further tick, %s", job.Name, last)
		return
	}
	s.say("schedule", "job %s: next tick %s, %s", job.Name, instant(job.Next), last)
}

// progress describes the progress of a running run. before is the last complete run.
func progress(run reports.RunRow, before *reports.RunRow) string {
	line := some(run.Users, "user") + " so far"
	if before != nil {
		line += fmt.Sprintf(", of about %s", Count(before.Users))
	}
	if run.SuspectPages > 0 {
		line += fmt.Sprintf("; suspect, because too many users were offline at once: %s", some(run.SuspectPages, "page"))
	}
	if run.Error != nil {
		line += "; " + *run.Error
	}
	return line
}

// platforms returns platforms with their mode: ios, web (push_online).
func platforms(all map[string]string) string {
	var on []string
	for _, platform := range slices.Sorted(maps.Keys(all)) {
		if mode := all[platform]; mode != "online" {
			platform += " (" + mode + ")"
		}
		on = append(on, platform)
	}
	return strings.Join(on, ", ")
}

// changes returns a table of the newest rows of the history.
func changes(k KindExplanation) Table {
	t := Table{Title: "Last changes", Columns: columns("after", "seen by", "from", "to", ">run")}
	told := slices.ContainsFunc(k.Changes, func(c reports.ChangeOf) bool { return c.ToldAt != nil })
	if told {
		t.Columns = columns("after", "seen by", "at, by a hook", "from", "to", ">run")
	}
	for _, c := range k.Changes {
		notBefore, from := "", "(first seen)"
		if c.NotBefore != nil {
			notBefore = instant(*c.NotBefore)
		}
		if c.Prev != nil {
			from = *c.Prev
		}
		to := c.Value
		if on := platforms(c.Platforms); on != "" {
			to += " on " + on
		}
		row := []string{notBefore, instant(c.ObservedAt)}
		if told {
			at := ""
			if c.ToldAt != nil {
				at = precise(*c.ToldAt)
			}
			row = append(row, at)
		}
		t.Rows = append(t.Rows, append(row, from, to, fmt.Sprint(c.RunID)))
	}
	return t
}
