package report

import (
	"io"
	"time"

	"syncer/repo/reports"
)

// WriteExplanationsJSON writes the explanations of a user, app by app, as one object.
// Keys named after columns of tables or views have the same meaning.
func WriteExplanationsJSON(w io.Writer, all []Explanation, now time.Time) error {
	var apps []object
	for _, e := range all {
		apps = append(apps, e.document())
	}
	return writeJSON(w, object{{"user_id", all[0].UserID}, {"generated_at", now}, {"tz", now.Location().String()}, {"apps", apps}})
}

func (e Explanation) document() object {
	var kinds []object
	for _, k := range e.Kinds {
		kinds = append(kinds, k.document())
	}
	return object{
		{"app", e.App}, {"provider", e.Provider}, {"listed", e.Listing.Listed()}, {"excluded", e.Listing.Excluded}, {"troubles", e.Troubles()},
		{"users_table", e.Listing.document()}, {"kinds", kinds},
	}
}

func (l Listing) document() object {
	why := func(err error) *string {
		if err == nil {
			return nil
		}
		text := err.Error()
		return &text
	}
	return object{
		{"table", l.Table}, {"where", l.Where}, {"rows", l.Rows}, {"rows_with_this_key", l.ByKey},
		{"error", why(l.Err)}, {"error_outside_where", why(l.OutsideErr)},
	}
}

// MarshalJSON returns the explanation as syncer explain prints it.
func (k KindExplanation) MarshalJSON() ([]byte, error) { return k.document().MarshalJSON() }

func (k KindExplanation) document() object {
	column, presence := "state", k.Kind == "presence"
	if !presence {
		column = "status"
	}
	var known, failure any
	if v := k.Known; v != nil {
		o := object{{column, v.Value}}
		if presence {
			o = append(o, member{"platforms", v.Platforms}, member{"since_after", v.SinceAfter})
		}
		if presence {
			o = append(o, member{"told_at", v.ToldAt})
		}
		known = append(o, member{"since", v.Since}, member{"last_checked_at", v.LastCheckedAt}, member{"stale", v.Stale})
	}
	if f := k.Failure; f != nil {
		failure = object{{"code", f.Code}, {"message", f.Message}, {"meaning", k.Meaning}, {"first_at", f.FirstAt}, {"last_at", f.LastAt},
			{"times", f.Times}, {"known_at", f.KnownAt}}
	}
	var jobs, history []object
	for _, job := range k.Jobs {
		jobs = append(jobs, object{{"job", job.Name}, {"last_tick", job.LastTick}, {"next_tick", unlessZero(job.Next)}, {"overdue_tick", unlessZero(job.Overdue)}})
	}
	for _, c := range k.Changes {
		o := object{{"prev_" + column, c.Prev}}
		if presence {
			o = append(o, member{"prev_since_after", c.PrevSinceAfter}, member{"prev_since", c.PrevSince}, member{column, c.Value}, member{"platforms", c.Platforms})
		} else {
			o = append(o, member{column, c.Value})
		}
		o = append(o, member{"not_before", c.NotBefore}, member{"observed_at", c.ObservedAt})
		if presence {
			o = append(o, member{"told_at", c.ToldAt})
		}
		history = append(history, append(o, member{"run_id", c.RunID}))
	}
	document := object{
		{"kind", k.Kind}, {"known", known}, {"failure", failure}, {"jobs", jobs},
		{"running", k.Running}, {"last_run", k.LastClosed}, {"last_complete_run", k.LastComplete}, {"gap_since", k.GapSince},
		{"history", history},
	}
	if presence {
		var days []object
		for _, d := range k.Days {
			days = append(days, object{{"day", d.Day.Format(time.DateOnly)}, {"online_seconds", d.OnlineSeconds}, {"sessions", d.Sessions},
				{"first_online", d.FirstOnline}, {"last_online", d.LastOnline}})
		}
		document = append(document, member{"days", days})
	}
	return document
}

// unlessZero returns a time, nil for the zero time.
func unlessZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// RunDocument returns everything about a run, to be encoded as JSON.
func RunDocument(d reports.RunDetail) any {
	run := struct {
		reports.RunRow
		reports.RunMore
	}{d.RunRow, d.RunMore}
	return object{
		{"run", run}, {"seen", d.Seen}, {"left", d.Left}, {"gaps", d.Gaps},
		{"range_states", d.Groups}, {"ranges", d.Ranges}, {"failures", d.Failures},
	}
}

// WriteRunJSON writes everything about a run as one object.
func WriteRunJSON(w io.Writer, d reports.RunDetail) error {
	return writeJSON(w, RunDocument(d).(object))
}
