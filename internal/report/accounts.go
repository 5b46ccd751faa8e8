package report

import "syncer/repo/reports"

// NewAccounts reports which users the provider has imported.
func NewAccounts(h Head, rows []reports.AccountsRow, coverage []reports.AccountCoverageRow, gaps []reports.GapRow) Report {
	r := Report{Name: Accounts, Title: "Accounts", Rows: rows, Lists: []List{{"coverage", coverage}}}
	if len(rows) == 0 {
		r.Empty = "No accounts run was completed up to the end of this time, so nothing is known of it. See: syncer report runs"
		return r
	}
	now := Table{Title: "Now", Columns: columns("app", ">users", ">imported", ">share", ">not imported", ">never checked", "last checked")}
	for _, row := range coverage {
		users := row.Imported + row.NotImported + row.NeverChecked
		cells := []string{row.App, Count(users), Count(row.Imported), "", Count(row.NotImported), Count(row.NeverChecked), ""}
		if users > 0 {
			cells[3] = percent(float64(row.Imported) / float64(users))
		}
		if row.LastCheckedAt != nil {
			cells[6] = minute(*row.LastCheckedAt)
		}
		now.Rows = append(now.Rows, cells)
	}
	r.Tables = append(r.Tables, now)
	for _, of := range groups(rows, func(row reports.AccountsRow) string { return row.App }) {
		app := of[0].App
		c := h.dailyChart("Accounts: "+app, "line", "users")
		c.Series = []Series{{Label: "imported", Role: "line"}, {Label: "not imported", Role: "line"}}
		t := Table{Title: app + ", at the end of the day", Columns: columns("day", ">imported", ">not imported", ">first seen", ">became imported", ">became not imported", ">gone")}
		for _, row := range of {
			c.X = append(c.X, h.middle(row.Day))
			c.Series[0].Values = append(c.Series[0].Values, value(row.Imported))
			c.Series[1].Values = append(c.Series[1].Values, value(row.NotImported))
			t.Rows = append(t.Rows, []string{weekday(row.Day), Count(row.Imported), Count(row.NotImported),
				Count(row.FirstSeen), Count(row.BecameImported), Count(row.BecameNotImported), Count(row.Gone)})
		}
		c.shade(h, gaps, app, "accounts")
		r.Charts, r.Tables = append(r.Charts, c), append(r.Tables, t)
	}
	r.Notes = append(r.Notes, "A change counts on the day on which it was seen. first seen: no status was known before. gone: left the users table, or is rejected by the API.")
	return r
}
