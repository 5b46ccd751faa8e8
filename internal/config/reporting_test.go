package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sameZone(a, b *time.Location) bool { return a.String() == b.String() }

func TestLoadReporting(t *testing.T) {
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, text string
		environ    []string
		want       *Reporting
		problem    string
	}{
		{
			name: "settings for sweeps do not count",
			text: `[database]
url = "postgres://reader@db/app"
schema = "presence"
[log]
format = "json"
[report]
timezone = "Asia/Tokyo"
[users]
table = "no table's name"
[[apps]]
name = "main"
provider = "tencent"
[apps.tencent]
secret_key_file = "/nowhere/secret"
[[apps]]
name = "chat"
`,
			environ: []string{"SYNCER_APPS_GONE_OPENIM_SECRET=x", "SYNCER_LOG_LEVEL=warn"},
			want:    &Reporting{Database: Database{URL: "postgres://reader@db/app", Schema: "presence", MaxConns: 10}, Log: Log{Level: "warn", Format: "json"}, Report: Report{Timezone: tokyo}, Apps: []string{"main", "chat"}},
		},
		{
			name:    "the environment sets it",
			text:    "",
			environ: []string{"SYNCER_DATABASE_URL=postgres://reader@db/app"},
			want:    &Reporting{Database: Database{URL: "postgres://reader@db/app", Schema: "syncer", MaxConns: 10}, Log: Log{Level: "info", Format: "auto"}, Report: Report{Timezone: time.UTC}},
		},
		{
			name:    "a wrong schema",
			text:    "[database]\nurl = \"postgres://reader@db/app\"\nschema = \"My Schema\"\n",
			problem: `config.toml:3: database.schema: "My Schema" is no simple name (allowed: at most 31 lower-case letters, digits and _, no digit first)`,
		},
		{
			name:    "no TOML",
			text:    "[database\n",
			problem: "config.toml:1:10: this is not TOML: expected ']' to close table name",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("config.toml", []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := LoadReporting("config.toml", test.environ)
			problem := ""
			if err != nil {
				problem = err.Error()
			}
			if diff := cmp.Diff(test.problem, problem); diff != "" {
				t.Errorf("problem (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.want, got, cmp.Comparer(sameZone)); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
	for _, test := range tests {
		if test.want == nil {
			continue
		}
		t.Run("pages: "+test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("config.toml", []byte(test.text+"\n[web]\nlisten = \"0.0.0.0:9465\"\ntoken = \"s3cret\"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := LoadViewing("config.toml", append(test.environ, "SYNCER_WEB_USER_PAGES=true"))
			if err != nil {
				t.Fatal(err)
			}
			want := &Viewing{Reporting: *test.want, Web: Web{Listen: "0.0.0.0:9465", Token: "s3cret", UserPages: true}}
			if diff := cmp.Diff(want, got, cmp.Comparer(sameZone)); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("config.toml", []byte(minimal+"\n[web]\nlisten = \"127.0.0.1:9465\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if whole, err := LoadViewing("config.toml", nil); err != nil || whole.Full == nil || len(whole.Full.Jobs) != 2 {
		t.Errorf("a whole configuration: %+v, %v", whole, err)
	}
	if _, err := LoadViewing("config.toml", []string{"SYNCER_WEB_LISTEN=:9465"}); err == nil || !strings.Contains(err.Error(), "need a password") {
		t.Errorf("pages without a password: %v", err)
	}
	if _, err := LoadReporting(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("a file that is not there is no error")
	}
}
