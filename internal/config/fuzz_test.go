package config

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"syncer/internal/schedule"
)

// Any text, with any value in the environment, either loads into a usable
// configuration or problems that each name a place in the text.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example), "x")
	f.Add(minimal, "postgres://u:p@h/db")
	f.Add("jobs = []\n"+minimal, "@every 1m")
	for _, c := range problemCases {
		text := c.text
		for i := 0; i < len(c.edits); i += 2 {
			if i == 0 {
				text = minimal
			}
			text = strings.Replace(text, c.edits[i], c.edits[i+1], 1)
		}
		f.Add(text, "CRON_TZ=UTC 0 0 29 2 *")
	}
	f.Add(minimal, strings.Repeat("long ", 600))
	f.Add(minimal, "* * * * \xff")
	f.Add("a = [[[{ b.c = 1, d = [1, 2] }]]]\n[a]\n[[a.b]]\n[a.b.c]\n\"\" = 1\n", "\x00")
	f.Fuzz(func(t *testing.T, text, value string) {
		environ := []string{
			"SYNCER_DATABASE_URL=" + value, "SYNCER_SWEEP_MAX_GAP=" + value, "SYNCER_JOBS_PRESENCE_SCHEDULE=" + value,
			"SYNCER_APPS_MAIN_TENCENT_BASE_URL=" + value, "SYNCER_USERS_TABLE=" + value, "SYNCER_" + value + "=1",
		}
		for _, env := range [][]string{nil, environ} {
			_, c, err := bind("config.toml", []byte(text), env)
			if err != nil {
				checkProblems(t, text, err)
			} else {
				checkUsable(t, c)
			}
		}
	})
}

func checkProblems(t *testing.T, text string, err error) {
	problems, ok := errors.AsType[Problems](err)
	if !ok || len(problems) == 0 {
		t.Fatalf("error %#v, want Problems", err)
	}
	lines := strings.Count(text, "\n") + 1
	for _, p := range problems {
		// A file's own words come back cut.
		if len(p.Text) > 2000+len(p.Var) || !utf8.ValidString(p.Text) {
			t.Errorf("%d bytes, or no UTF-8: %.3000q", len(p.Text), p.Text)
		}
		if p.Text == "" || p.Line < 0 || p.Line > lines || (p.Var == "") == (p.File == "") || p.Var == "" && p.Key == "" && p.Column == 0 {
			t.Errorf("problem without a place in %d lines: %+v", lines, p)
		}
	}
}

func checkUsable(t *testing.T, c *Config) {
	if len(c.Apps) == 0 || c.Database.URL == "" || c.Sweep.PageUsers > c.Sweep.RangeUsers {
		t.Errorf("not usable: %+v", c)
	}
	for _, app := range c.Apps {
		if (app.Tencent == nil) == (app.OpenIM == nil) || app.Users.Table.IsZero() || app.Users.UserID == "" || !utf8.ValidString(app.Name) {
			t.Errorf("app not usable: %+v", app)
		}
	}
	for _, job := range c.Jobs {
		if job.Timezone == nil || job.Interval <= 0 || job.MaxGap < job.Interval {
			t.Errorf("job not usable: %+v", job)
		}
		if ticks, err := schedule.Parse(job.Schedule, job.Timezone); err != nil || !ticks.Next(reference).After(reference) {
			t.Errorf("job %s never ticks: %s, %v", job.Name, job.Schedule, err)
		}
	}
}
