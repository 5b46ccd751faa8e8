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

// FuzzSecrets puts any password into every place that takes one, also such as
// nobody has encoded, and looks for it in errors and in what is shown.
func FuzzSecrets(f *testing.F) {
	for _, around := range [][2]string{
		{"", ""}, {"/", ""}, {"1/", ""}, {"1?", ""}, {"1#", ""}, {"p@", ""}, {"p", "@x:port"}, {"%", "%zz"}, {"' ", "'"}, {"\\", "\\"}, {"x ", " y"}, {":", ":"}, {"\n", "\x00"}, {"[", "]"}, {"`: ", " (invalid port"},
	} {
		f.Add(around[0], around[1])
	}
	dir := f.TempDir()
	path, secretFile := filepath.Join(dir, "config.toml"), filepath.Join(dir, "secret")
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, "=") {
			return // may name another setting of a URL, whose value is shown
		}
		secret := before + canary + after
		if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		// All of it is wrong or right by itself, so that each comes alone.
		for _, url := range []string{"postgres://u:" + secret + "@h/db", "postgresql://u:" + secret + "@h:1,i:2/db", "host=h user=u dbname=d password=" + secret, "host=h user=u dbname=d password='" + secret + "'"} {
			checkHidden(t, path, minimal, "SYNCER_DATABASE_URL="+url)
			checkHidden(t, path, strings.Replace(minimal, `table = "users"`, "table = \"users\"\nurl = "+tomlString(url), 1))
		}
		checkHidden(t, path, strings.Replace(minimal, `"tencent-key"`, tomlString(secret), 1))
		checkHidden(t, path, strings.Replace(minimal, `"tencent-key"`, `"`+secret+`"`, 1)) // may be no TOML at all
		checkHidden(t, path, strings.Replace(minimal, `secret = "openim-secret"`, `secret_file = "secret"`, 1), "SYNCER_HTTP_TOKEN="+secret)
		checkHidden(t, path, strings.Replace(minimal, "https://10.0.0.7:10002/", "https://u:"+canary+"@10.0.0.7/", 1))
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
