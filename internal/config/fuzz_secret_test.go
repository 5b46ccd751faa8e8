package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// canary is in every secret of the targets here.
const canary = "CANARY7"

// FuzzSecrets puts any password, also unencoded ones, into every place that
// takes one, and looks for it in errors and in output.
func FuzzSecrets(f *testing.F) {
	inTOML := func(secret string) string { return strings.Replace(minimal, `"tencent-key"`, secret, 1) }
	inURL := func(before, after string) func(t *testing.T, path, secret string) {
		return func(t *testing.T, path, secret string) {
			url := before + secret + after
			checkHidden(t, path, minimal, "SYNCER_DATABASE_URL="+url)
			checkHidden(t, path, strings.Replace(minimal, `table = "users"`, "table = \"users\"\nurl = "+tomlString(url), 1))
		}
	}
	// One place after the other, since what is wrong with one hides the others.
	places := []func(t *testing.T, path, secret string){
		inURL("postgres://u:", "@h/db"),
		inURL("postgresql://u:", "@h:1,i:2/db?sslmode=disable"),
		inURL("host=h user=u dbname=d password=", ""),
		inURL("host=h user=u dbname=d password='", "'"),
		func(t *testing.T, path, secret string) {
			checkHidden(t, path, minimal, "SYNCER_TRACES_PROXY=http://u:"+secret+"@proxy:3128", "SYNCER_APPS_MAIN_PROXY=socks5://"+secret+"@proxy")
		},
		func(t *testing.T, path, secret string) { checkHidden(t, path, inTOML(tomlString(secret))) },
		func(t *testing.T, path, secret string) { checkHidden(t, path, inTOML(`"`+secret+`"`)) }, // may be no TOML at all
		func(t *testing.T, path, secret string) {
			if err := os.WriteFile(filepath.Join(filepath.Dir(path), "secret"), []byte(secret), 0o600); err != nil {
				t.Fatal(err)
			}
			checkHidden(t, path, strings.Replace(minimal, `secret = "openim-secret"`, `secret_file = "secret"`, 1), "SYNCER_HTTP_TOKEN="+secret)
		},
		func(t *testing.T, path, secret string) {
			checkHidden(t, path, strings.Replace(minimal, `"https://10.0.0.7:10002/"`, tomlString("https://u:"+secret+"@10.0.0.7/"), 1))
		},
	}
	for i, around := range [][2]string{
		{"", ""}, {"/", ""}, {"1/", ""}, {"1?", ""}, {"1#", ""}, {"p@", ""}, {"p", "@x:port"}, {"%", "%zz"}, {"' ", "'"}, {"\\", "\\"},
		{"x ", " y"}, {":", ":"}, {"\n", "\x00"}, {"[", "]"}, {"`: ", " (invalid port"},
	} {
		for place := i % 2; place < len(places); place += 2 {
			f.Add(uint8(place), around[0], around[1])
		}
	}
	path := filepath.Join(f.TempDir(), "config.toml")
	f.Fuzz(func(t *testing.T, place uint8, before, after string) {
		if strings.Contains(before+after, "=") {
			return // may name another setting of a URL, whose value is shown
		}
		places[int(place)%len(places)](t, path, before+canary+after)
	})
}

// tomlString writes any valid text as a TOML string.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		fmt.Fprintf(&b, `\U%08x`, r)
	}
	b.WriteByte('"')
	return b.String()
}

// checkHidden loads and prints a configuration and looks for the canary.
func checkHidden(t *testing.T, path, text string, environ ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	c, err := Load(path, environ)
	if err == nil {
		if err := Print(&shown, path, environ); err != nil {
			t.Fatal(err)
		}
		encoded, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&shown, "%s%+v%#v", encoded, c, *c)
	} else {
		fmt.Fprint(&shown, err)
	}
	if i := strings.Index(shown.String(), canary); i >= 0 {
		t.Errorf("of %q %q a secret shows: %.200s", text, environ, shown.String()[max(0, i-100):])
	}
}
