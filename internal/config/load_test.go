package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

// minimal has no more than what is required. Tests change single lines of it.
const minimal = `[database]
url = "postgres://syncer@localhost/app"

[users]
table = "users"

[[apps]]
name = "main"
provider = "tencent"
[apps.tencent]
sdk_app_id = 1400000000
secret_key = "tencent-key"
region = "singapore"

[[apps]]
name = "chat"
provider = "openim"
[apps.openim]
base_url = "https://10.0.0.7:10002/"
secret = "openim-secret"
`

// edit replaces lines of minimal: old, new, old, new, …
func edit(t *testing.T, pairs ...string) string {
	t.Helper()
	s := minimal
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(s, pairs[i]) {
			t.Fatalf("nothing to replace: %q", pairs[i])
		}
		s = strings.Replace(s, pairs[i], pairs[i+1], 1)
	}
	return s
}

func mustDecode(t *testing.T, text string, environ ...string) *Config {
	t.Helper()
	_, c, err := bind("config.toml", []byte(text), environ)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	return c
}

func TestLoadDefaults(t *testing.T) {
	got := mustDecode(t, minimal)
	users := Users{Table: Table{Name: "users"}, KeyColumn: "id", UserID: `"id"`}
	want := &Config{
		Database: Database{URL: "postgres://syncer@localhost/app", Schema: "syncer", MaxConns: 10},
		Log:      Log{Level: "info", Format: "auto"},
		HTTP:     HTTP{Listen: "127.0.0.1:9464"},
		Hooks:    Hooks{Share: 0.2, MaxPending: 100000},
		Users:    users,
		Apps: []App{
			{Name: "main", Provider: imclient.ProviderTencent, Users: users, Tencent: &Tencent{
				SDKAppID: 1400000000, Identifier: "administrator", SecretKey: "tencent-key", Region: "singapore",
				PresenceAPI: "query_online_status", Detail: true,
				PresenceRate: 180, AccountsRate: 90, Timeout: 8 * time.Second,
			}},
			{Name: "chat", Provider: imclient.ProviderOpenIM, Users: users, OpenIM: &OpenIM{
				BaseURL: "https://10.0.0.7:10002", AdminUserID: "imAdmin", Secret: "openim-secret",
				PresenceRate: 50, AccountsRate: 50, Timeout: 8 * time.Second,
			}},
		},
		Jobs: []Job{
			{Name: "presence", Kind: imclient.KindPresence, Schedule: "@every 1m", Timezone: time.UTC, CatchUp: true,
				Interval: time.Minute, MaxGap: 3 * time.Minute},
			{Name: "accounts", Kind: imclient.KindAccounts, Schedule: "@daily", Timezone: time.UTC, CatchUp: true,
				Interval: 24 * time.Hour, MaxGap: 72 * time.Hour},
		},
		Sweep: Sweep{RangeUsers: 50000, PageUsers: 5000, Workers: 4, RescueAfter: time.Minute, Outage: 5 * time.Minute,
			StopGrace: 20 * time.Second, CollapseRatio: 0.5, CollapseDelay: 20 * time.Second, RemovalRatio: 0.5, RemovalMin: 1000},
		History: History{Partition: "month"},
		Report:  Report{Timezone: time.UTC},
		Traces:  Traces{Sample: 1},
	}
	// Secrets compare as strings: formatted, they are all the same.
	opts := cmp.Options{
		cmp.Transformer("reveal", func(s Secret) string { return s.Reveal() }),
		cmp.Transformer("revealURL", func(u DatabaseURL) string { return u.Reveal() }),
		cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() }),
	}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestLoadJobs(t *testing.T) {
	c := mustDecode(t, minimal+`
[[jobs]]
name = "office-hours"
kind = "presence"
app = "chat"
schedule = "*/10 9-17 * * 1-5"
timezone = "Europe/Berlin"
catch_up = false
[[jobs]]
name = "night"
kind = "accounts"
schedule = "CRON_TZ=Asia/Tokyo 30 2 * * *"
[[jobs]]
name = "quick"
kind = "presence"
schedule = "@every 1m30s"
[sweep]
max_gap = "25m"
`)
	type row struct {
		Schedule, Zone   string
		Interval, MaxGap time.Duration
		CatchUp          bool
	}
	want := []row{
		{"*/10 9-17 * * 1-5", "Europe/Berlin", 10 * time.Minute, 25 * time.Minute, false},
		{"30 2 * * *", "Asia/Tokyo", 24 * time.Hour, 72 * time.Hour, true},
		{"@every 1m30s", "UTC", 90 * time.Second, 25 * time.Minute, true},
	}
	var got []row
	for _, j := range c.Jobs {
		got = append(got, row{j.Schedule, j.Timezone.String(), j.Interval, j.MaxGap, j.CatchUp})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
	if c := mustDecode(t, "jobs = []\n"+minimal); len(c.Jobs) != 0 {
		t.Errorf("jobs = [] gives %d jobs, want none", len(c.Jobs))
	}
}

func TestLoadUsersOfAnApp(t *testing.T) {
	c := mustDecode(t, edit(t,
		`table = "users"`, `table = "crm.\"Users\""
key_column = "Uid"
where = "active"
url = "postgres://replica/crm"`,
		`region = "singapore"`, `region = "singapore"
[apps.users]
where = ""
user_id = "'u_' || uid"
url = ""`))
	common := Users{Table: Table{Schema: "crm", Name: "Users"}, KeyColumn: "uid", UserID: `"uid"`, Where: "active", URL: "postgres://replica/crm"}
	own := common
	own.Where, own.UserID, own.URL = "", "'u_' || uid", ""
	for name, pair := range map[string][2]Users{
		"[users]":               {common, c.Users},
		"app with [apps.users]": {own, c.Apps[0].Users},
		"app without":           {common, c.Apps[1].Users},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: want %+v, got %+v", name, pair[0], pair[1])
		}
	}
	if got, want := c.Users.Table.String(), `"crm"."Users"`; got != want {
		t.Errorf("table as SQL: %s, want %s", got, want)
	}
}

func TestLoadUsersOnlyOfApps(t *testing.T) {
	c := mustDecode(t, edit(t,
		"[users]\ntable = \"users\"\n", "",
		`name = "main"`, "name = \"main\"\nusers = { table = \"a\" }",
		`secret = "openim-secret"`, "secret = \"openim-secret\"\n[apps.users]\ntable = \"b\""))
	if a, b := c.Apps[0].Users.Table.Name, c.Apps[1].Users.Table.Name; a != "a" || b != "b" {
		t.Errorf("tables %q and %q, want a and b", a, b)
	}
}

func TestLoadFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "syncer.toml")
	write(t, path, "\xef\xbb\xbf"+strings.ReplaceAll(minimal, "\n", "\r\n"), 0o600)
	if _, err := Load(path, nil); err != nil {
		t.Errorf("a file as some editors write it (BOM, CRLF): %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none.toml"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: error %v, want fs.ErrNotExist", err)
	}
	write(t, path, strings.Repeat("# not a configuration\n", maxFile/20), 0o600)
	if _, err := Load(path, nil); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("too large: error %v", err)
	}
}

func TestFind(t *testing.T) {
	t.Chdir(t.TempDir())
	before := searched
	t.Cleanup(func() { searched = before })
	searched = []string{"./config.toml", filepath.Join(t.TempDir(), "config.toml")}

	if got, err := Find("given.toml"); got != "given.toml" || err != nil {
		t.Errorf("Find(given.toml) = %q, %v", got, err)
	}
	_, err := Find("")
	if err == nil || !strings.Contains(err.Error(), searched[0]) || !strings.Contains(err.Error(), searched[1]) {
		t.Errorf("nothing there: error %v, want both places named", err)
	}
	for _, path := range []string{searched[1], searched[0]} { // the first is preferred
		write(t, path, minimal, 0o600)
		if got, err := Find(""); got != path || err != nil {
			t.Errorf("Find = %q, %v, want %q", got, err, path)
		}
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask may have taken bits
		t.Fatal(err)
	}
}
