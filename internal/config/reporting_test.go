package config

import (
	"os"
	"path/filepath"
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
			name: "only the database counts",
			text: `[database]
url = "postgres://reader@db/app"
schema = "presence"
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
			environ: []string{"SYNCER_APPS_GONE_OPENIM_SECRET=x"},
			want:    &Reporting{Database: Database{URL: "postgres://reader@db/app", Schema: "presence", MaxConns: 10}, Report: Report{Timezone: tokyo}, Apps: []string{"main", "chat"}},
		},
		{
			name:    "the environment sets it",
			text:    "",
			environ: []string{"SYNCER_DATABASE_URL=postgres://reader@db/app"},
			want:    &Reporting{Database: Database{URL: "postgres://reader@db/app", Schema: "syncer", MaxConns: 10}, Report: Report{Timezone: time.UTC}},
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
	if _, err := LoadReporting(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("a file that is not there is no error")
	}
}
