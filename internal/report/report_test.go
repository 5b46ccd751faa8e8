package report

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/repo/reports"
)

var update = flag.Bool("update", false, "write what is printed into testdata")

func ptr[T any](v T) *T { return &v }

// berlin sets its clocks back on 2026-10-25.
func berlin(t *testing.T) *time.Location {
	t.Helper()
	tz, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return tz
}

// sample is a week of one app, with a night and a day in it, and of a second app
// whose name wants escaping. Nobody looked for some hours of the third day.
func sample(t *testing.T) (Head, []Report) {
	t.Helper()
	tz := berlin(t)
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 10, day, hour, minute, 0, 0, tz) }
	h := Head{Span: reports.Span{From: at(22, 0, 0), To: at(29, 0, 0), Location: tz}, AsOf: at(28, 15, 30)}
	const strange = `</script>"'&`
	gaps := []reports.GapRow{
		{App: strange, Kind: "presence", StartedAt: at(28, 12, 0), Seconds: 12600, SecondsInSpan: 12600, LastSeenFrom: at(28, 11, 50)},
		{App: "main", Kind: "presence", StartedAt: at(24, 9, 10), EndedAt: ptr(at(24, 14, 40)), Seconds: 19800, SecondsInSpan: 19800,
			LastSeenFrom: at(24, 9, 0), NextSeenBy: ptr(at(24, 14, 50))},
	}
	var online []reports.ConcurrencyRow
	for _, app := range []string{strange, "main"} {
		for _, bucket := range h.Buckets() {
			row := reports.ConcurrencyRow{App: app, Bucket: bucket, BucketSeconds: 3600, ObservedSeconds: 3600}
			until := bucket.Add(time.Hour)
			for _, g := range gaps {
				end := h.AsOf
				if g.EndedAt != nil {
					end = *g.EndedAt
				}
				if g.App == app && g.StartedAt.Before(until) && end.After(bucket) {
					row.ObservedSeconds = max(g.StartedAt.Sub(bucket).Seconds(), until.Sub(end).Seconds(), 0)
				}
			}
			if row.ObservedSeconds > 0 {
				level := 6000 - 5000*math.Cos(2*math.Pi*float64(bucket.Hour()-4)/24)
				row.Runs, row.Users = 6, ptr(int64(20000))
				row.OnlineMin, row.OnlineAvg, row.OnlineMax = ptr(int64(level*0.95)), ptr(math.Round(level)), ptr(int64(level*1.05))
				row.PushOnlineAvg = ptr(math.Round(level / 2))
			}
			online = append(online, row)
		}
	}
	day := func(n int) string { return fmt.Sprintf("2026-10-%02d", n) }
	var active []reports.ActiveUsersRow
	var begun []reports.SessionsRow
	var accounts []reports.AccountsRow
	for n := 22; n <= 28; n++ {
		i := int64(n - 22)
		a := reports.ActiveUsersRow{App: "main", Day: day(n), Daily: 9000 + 100*i, Weekly: 12000 + 500*i, Monthly: 12000 + 700*i, ObservedSeconds: 86400, DaySeconds: 86400}
		s := reports.SessionsRow{App: "main", Day: ptr(day(n)), Sessions: 15000 + 300*i, MedianSeconds: 1500, P90Seconds: 7200.5, LongestSeconds: 50000}
		switch n {
		case 24:
			a.ObservedSeconds = 66600
			s.CutByGap = 4200
		case 25:
			a.DaySeconds, a.ObservedSeconds = 90000, 90000
		case 28:
			a.ObservedSeconds = 55800
			s.Open = 900
		}
		active, begun = append(active, a), append(begun, s)
		accounts = append(accounts, reports.AccountsRow{App: "main", Day: day(n), Imported: 19000 + 50*i, NotImported: 1000 - 50*i, BecameImported: 50})
	}
	overall := []reports.SessionsRow{{App: "main", Sessions: 111300, CutByGap: 4200, Open: 900, MedianSeconds: 1500, P90Seconds: 7200, LongestSeconds: 50000}}
	longest := []reports.SessionRow{
		{App: "main", UserID: "u1\x1b[31m<b>", StartedAfter: ptr(at(23, 8, 0)), StartedAt: at(23, 8, 10), EndedAfter: ptr(at(23, 22, 0)), EndedAt: ptr(at(23, 22, 10)),
			KnownSeconds: 49800, EstimatedSeconds: 50400, EndedBy: "observed"},
		{App: "main", UserID: "u,2", StartedAt: at(28, 9, 0), EndedAfter: ptr(at(28, 15, 20)), KnownSeconds: 22800, EstimatedSeconds: 23400, EndedBy: "open"},
	}
	runs := []reports.RunRow{
		{App: "main", RunID: 4, Kind: "presence", Job: "presence", Trigger: "cron", Tick: ptr(at(28, 15, 20)), Status: "running", StartedAt: at(28, 15, 20), Seconds: 600},
		{App: "main", RunID: 3, Kind: "presence", Job: "presence", Trigger: "cron", Tick: ptr(at(28, 15, 10)), Status: "failed", StartedAt: at(28, 15, 10),
			FinishedAt: ptr(at(28, 15, 11)), Seconds: 60, Users: 500, Calls: 10, Retries: 9, Error: ptr("the API cannot be reached\nconnection refused")},
		{App: "main", RunID: 2, Kind: "accounts", Job: "accounts", Trigger: "cron", Tick: ptr(at(28, 15, 0)), Status: "succeeded", StartedAt: at(28, 15, 0),
			FinishedAt: ptr(at(28, 15, 4)), Seconds: 240, Users: 20000, Changed: 50, Calls: 200},
		{App: "main", RunID: 1, Kind: "presence", Job: "presence", Trigger: "cron", Tick: ptr(at(28, 15, 0)), Status: "partial", StartedAt: at(28, 15, 0),
			FinishedAt: ptr(at(28, 15, 2)), Seconds: 121.25, Users: 20000, Changed: 1234, Failed: 3, Calls: 40, Retries: 1},
	}
	return h, []Report{
		NewConcurrency(h, online, gaps),
		NewActiveUsers(h, active, gaps),
		NewSessions(h, begun, overall, longest, gaps),
		NewPlatforms(h, []reports.PlatformRow{
			{App: "main", Platform: "ios", UsersAvg: 4100.25, UsersMax: 7000, Share: 0.6125},
			{App: "main", Platform: "android", UsersAvg: 2500, UsersMax: 4100, Share: 0.375},
			{App: "main", Platform: "web", UsersAvg: 99.25, UsersMax: 300, Share: 0.0149},
		}, []reports.DevicesRow{{App: "main", Online: 6200, MultiPlatform: 310, Share: ptr(0.05)}}),
		NewAccounts(h, accounts, []reports.AccountCoverageRow{{App: "main", Imported: 19300, NotImported: 700, NeverChecked: 12, LastCheckedAt: ptr(at(28, 15, 0))}}, gaps),
		NewRuns(h, runs, gaps),
		NewInactive(h, []reports.InactiveRow{
			{App: strange, UserID: "=1+1", State: "offline", ObservedFrom: at(28, 0, 0), ObservedUntil: at(28, 12, 0), ObservedSeconds: 43200, ObservedShare: 43200. / 604800},
			{App: "main", UserID: "u,1", State: "offline", AccountStatus: ptr("imported"), AccountSince: ptr(at(2, 8, 0)),
				ObservedFrom: at(22, 0, 0), ObservedUntil: at(28, 15, 20), ObservedSeconds: 561600, ObservedShare: 561600. / 604800},
			{App: "main", UserID: "u2", State: "push_online", LastOnlineAfter: ptr(at(1, 7, 50)), LastOnlineAt: ptr(at(1, 8, 0)), AccountStatus: ptr("imported"), AccountSince: ptr(at(1, 0, 0)),
				ObservedFrom: at(22, 0, 0), ObservedUntil: at(29, 0, 0), ObservedSeconds: 604000, ObservedShare: 604000. / 604800},
		}),
		NewGaps(h, gaps, []reports.CoverageRow{
			{App: strange, Kind: "presence", Gaps: 1, Since: at(22, 0, 0), Seconds: 577800, GapSeconds: 12600, ObservedSeconds: 565200, ObservedShare: ptr(0.97819)},
			{App: "main", Kind: "presence", Gaps: 1, Since: at(22, 0, 0), Seconds: 577800, GapSeconds: 19800, ObservedSeconds: 558000, ObservedShare: ptr(0.96573)},
			{App: "main", Kind: "accounts", Since: at(22, 0, 0), Seconds: 577800, ObservedSeconds: 577800, ObservedShare: ptr(1.0)},
		}),
	}
}

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got); go test ./internal/report -update writes it:\n%s", name, diff)
	}
}

func TestReports(t *testing.T) {
	h, reports := sample(t)
	for _, r := range reports {
		t.Run(r.Name, func(t *testing.T) {
			var text, csv, json bytes.Buffer
			if err := WriteText(&text, h, []Report{r}, 80, false); err != nil {
				t.Fatal(err)
			}
			golden(t, r.Name+".txt", text.Bytes())
			if err := WriteCSV(&csv, r.Rows, false); err != nil {
				t.Fatal(err)
			}
			golden(t, r.Name+".csv", csv.Bytes())
			if err := WriteJSON(&json, h, r); err != nil {
				t.Fatal(err)
			}
			golden(t, r.Name+".json", json.Bytes())
		})
	}
}

func TestNothing(t *testing.T) {
	h, _ := sample(t)
	h.Span.App = ptr("main")
	reports := []Report{
		NewConcurrency(h, nil, nil), NewActiveUsers(h, nil, nil), NewSessions(h, nil, nil, nil, nil), NewPlatforms(h, nil, nil),
		NewAccounts(h, nil, nil, nil), NewRuns(h, nil, nil), NewInactive(h, nil), NewGaps(h, nil, nil),
	}
	var out bytes.Buffer
	if err := WriteText(&out, h, reports, 80, false); err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		if err := WriteCSV(&out, r.Rows, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteAllJSON(&out, h, reports); err != nil {
		t.Fatal(err)
	}
	golden(t, "nothing.txt", out.Bytes())
	if err := WriteHTML(&out, h, reports); err != nil {
		t.Fatal(err)
	}
}

func TestCutToTerminal(t *testing.T) {
	h, reports := sample(t)
	var out bytes.Buffer
	if err := WriteText(&out, h, reports, 60, true); err != nil {
		t.Fatal(err)
	}
	golden(t, "width60.txt", out.Bytes())
}
