package report

import (
	"fmt"

	"syncer/repo/reports"
)

// InactiveShown is the number of inactive users of an app that a table lists.
const InactiveShown = 20

// NewInactive reports which users were not online in a span that ends now.
func NewInactive(h Head, rows []reports.InactiveRow) Report {
	r := Report{Name: Inactive, Title: "Inactive users", Rows: rows}
	days := some(int64(h.Span.To.Sub(h.Span.From).Hours()/24), "day")
	if len(rows) == 0 {
		r.Empty = "No user is known who was not online for " + days + "."
		return r
	}
	now := Table{Columns: columns("app", ">inactive", ">never online", ">not for "+days, ">observed over 90 %")}
	var lists []Table
	for _, of := range groups(rows, func(row reports.InactiveRow) string { return row.App }) {
		var never, whole int64
		list := Table{Title: of[0].App, Columns: columns("user", "last online", "account", "since", ">observed")}
		for i, row := range of {
			if row.LastOnlineAt == nil {
				never++
			}
			if row.ObservedShare > mostly {
				whole++
			}
			if i < InactiveShown {
				list.Rows = append(list.Rows, inactiveCells(row))
			}
		}
		n := int64(len(of))
		if n > InactiveShown {
			list.Title = fmt.Sprintf("%s: the first %d of %s", of[0].App, InactiveShown, Count(n))
		}
		now.Rows = append(now.Rows, []string{of[0].App, Count(n), Count(never), Count(n - never), Count(whole)})
		lists = append(lists, list)
	}
	r.Tables = append([]Table{now}, lists...)
	r.Notes = append(r.Notes,
		"Not online in the last "+days+", or never since first seen. Being reachable by push is not online. csv and json have all users.",
		"observed: the share of that time in which the user was known and looked at. Where it is low nothing was seen, which does not mean that the user was away.")
	return r
}

// mostly is the observed share above which a user counts as observed.
const mostly = 0.9

func inactiveCells(row reports.InactiveRow) []string {
	last, account, since := "never", "not checked", ""
	if row.LastOnlineAt != nil {
		last = minute(*row.LastOnlineAt)
	}
	if row.AccountStatus != nil {
		account = *row.AccountStatus
	}
	if row.AccountSince != nil {
		since = minute(*row.AccountSince)
	}
	return []string{row.UserID, last, account, since, percent(row.ObservedShare)}
}
