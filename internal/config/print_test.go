package config

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// secretConfig has a secret wherever one may stand.
func secretConfig(t *testing.T) (path string, environ []string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.toml")
	write(t, filepath.Join(filepath.Dir(path), "secret"), "CANARY-file\n", 0o600)
	write(t, path, edit(t,
		"postgres://syncer@localhost/app", "postgres://syncer:CANARY-db@localhost/app?sslpassword=CANARY-key",
		`table = "users"`, "table = \"users\"\nwhere = \"name <> 'x'\"\nuser_id = \"'\\u0007\\u007f\\\"' \\U000e0001\"",
		`"tencent-key"`, `"CANARY-tencent"`,
		`secret = "openim-secret"`, "secret_file = \"secret\"\n[apps.users]\nurl = \"host=other user=u dbname=d password=CANARY-users\"\n[http]\ntoken = \"CANARY-token\"\n[web]\ntoken = \"CANARY-web\"\ndatabase_url = \"host=other user=u dbname=d password=CANARY-reader\"\n"+
			"[traces]\nendpoint = \"https://collector:4318\"\nheaders = \"Authorization: Bearer CANARY-trace\"\nproxy = \"socks5h://CANARY-token@proxy:1080\""), 0o600)
	return path, []string{"SYNCER_SWEEP_WORKERS=7", "SYNCER_APPS_MAIN_USERS_URL=postgres://u:CANARY-env@h/d", "SYNCER_APPS_MAIN_PROXY=http://u:CANARY-proxy@proxy:3128"}
}

func TestPrint(t *testing.T) {
	path, environ := secretConfig(t)
	var b strings.Builder
	if err := Print(&b, path, environ); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(b.String(), path, "config.toml")
	if strings.Contains(text, "CANARY") {
		t.Errorf("a secret shows:\n%s", text)
	}
	var squeezed []string
	for line := range strings.Lines(text) {
		squeezed = append(squeezed, strings.Join(strings.Fields(line), " "))
	}
	for _, want := range []string{
		`url = "postgres://syncer@localhost:5432/app" # config.toml:2`,
		`schema = "syncer" # default`,
		`token = "[secret]" # config.toml:26`,
		`headers = "[secret]" # config.toml:32`,
		`secret_key = "[secret]" # config.toml:14`,
		`secret = "[secret]" # config.toml:22, by secret_file`,
		`url = "postgres://u@h:5432/d" # SYNCER_APPS_MAIN_USERS_URL`,
		`url = "postgres://u@other:5432/d" # config.toml:24`,
		`where = "name <> 'x'" # config.toml:6`, `key_column = "\"id\"" # default`,
		`user_id = "'\u0007\u007f\"' \U000e0001" # config.toml:7`,
		`workers = 7 # SYNCER_SWEEP_WORKERS`,
		`proxy = "http://proxy:3128" # SYNCER_APPS_MAIN_PROXY`, `proxy = "socks5h://proxy:1080" # config.toml:33`,
		`max_gap = "" # default`,
		`rescue_after = "1m0s" # default`,
		`name = "presence" # default`,
	} {
		if !slices.Contains(squeezed, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	inherited := slices.DeleteFunc(squeezed, func(line string) bool { return line != `where = "name <> 'x'" # as in [users] where` })
	if len(inherited) != 2 {
		t.Errorf("%d apps have the condition of [users], want 2:\n%s", len(inherited), text)
	}
	var tree map[string]any
	if err := toml.Unmarshal([]byte(b.String()), &tree); err != nil {
		t.Errorf("what is printed is no TOML: %v", err)
	}
	if err := Print(&b, path, []string{"SYNCER_SWEEP_WORKERS=no"}); err == nil || !strings.Contains(err.Error(), "SYNCER_SWEEP_WORKERS") {
		t.Errorf("Print of a wrong configuration: %v", err)
	}
}

// TestConfigIsMasked: however a whole configuration gets into a text, no secret does.
func TestConfigIsMasked(t *testing.T) {
	path, environ := secretConfig(t)
	c, err := Load(path, environ)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	all := string(text)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		all += fmt.Sprintf(verb, c) + fmt.Sprintf(verb, *c) + fmt.Sprintf(verb, c.Apps) + fmt.Sprintf(verb, *c.Apps[0].Tencent) + fmt.Sprintf(verb, *c.Apps[1].OpenIM)
	}
	if i := strings.Index(all, "CANARY"); i >= 0 {
		t.Errorf("a secret shows: %.80s", all[max(0, i-40):])
	}
	if c.Apps[1].OpenIM.Secret.Reveal() != "CANARY-file" || c.HTTP.Token.Reveal() != "CANARY-token" {
		t.Error("the secrets are not there")
	}
}
