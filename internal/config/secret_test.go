package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

func TestSecretIsNeverShown(t *testing.T) {
	const value = "hunter2hunter2"
	held := struct {
		S   Secret
		P   *Secret
		URL DatabaseURL
		Px  ProxyURL
	}{S: value, Px: "http://syncer:" + value + "@proxy:3128", URL: "postgres://syncer:" + value + "@db.example/app?sslpassword=" + value}
	held.P = &held.S

	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T", "%08.3f"} {
		fmt.Fprintf(&out, verb+"\n", held.S)
		fmt.Fprintf(&out, verb+"\n", held.URL)
		fmt.Fprintf(&out, verb+"\n", held.Px)
		fmt.Fprintf(&out, verb+"\n", held)
	}
	log := zerolog.New(&out)
	log.Info().Interface("all", held).Stringer("s", held.S).Stringer("url", held.URL).Stringer("proxy", held.Px).Any("any", held.S).Send()
	text, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	if strings.Contains(out.String(), value) || strings.Contains(out.String(), fmt.Sprintf("%x", value)) {
		t.Errorf("the secret shows:\n%s", out.String())
	}
	if got := held.S.Reveal(); got != value {
		t.Errorf("Reveal gives %q", got)
	}
}

func TestDatabaseURLString(t *testing.T) {
	for url, want := range map[string]string{
		"": "",
		"postgres://syncer:pw@db.example:6432/app?sslmode=disable":       "postgres://syncer@db.example:6432/app",
		"postgres://u:pw@a:5432,b:5433/app?target_session_attrs=primary": "postgres://u@a:5432,b:5433/app",
		"host=db.example user=u password=pw dbname=app":                  "postgres://u@db.example:5432/app",
		"postgres://u:p%w@db/app":                                        "[secret]",
		// Passwords whose characters should be %-encoded, and where none is.
		"postgres://u:p@ss@db/app":                   "[secret]",
		"postgresql://u:/pw@db/app":                  "[secret]",
		"postgres://u:1/pw@db/app":                   "[secret]",
		"postgres://u:1?pw@db/app":                   "[secret]",
		"postgres://u:1/x#@db/app":                   "[secret]",
		"postgres://db:5432/app?user=me@server":      "postgres://me@server@db:5432/app",
		"postgres://u:p%40%2F%3F%23@db/app":          "postgres://u@db:5432/app",
		"postgres://u@/app?host=/run&password=a@b/c": "postgres://u@/run:5432/app",
	} {
		if got := DatabaseURL(url).String(); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
}

func TestProxyURL(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"http://proxy:3128":       "http://proxy:3128",
		"http://u:pw@proxy:3128/": "http://proxy:3128",
		"https://token@proxy":     "https://proxy",
		"socks5://[::1]:1080":     "socks5://[::1]:1080",
		"socks5h://u:pw@proxy":    "socks5h://proxy",
		"proxy:3128":              "[secret]",
		"ftp://proxy":             "[secret]",
		"http://":                 "[secret]",
		"http://:3128":            "[secret]",
		"http://proxy:port":       "[secret]",
		"http://proxy:65536":      "[secret]",
		"http://proxy/path":       "[secret]",
		"http://proxy?a=b":        "[secret]",
		"http://u:1/pw@proxy":     "[secret]",
		"http://u:1#pw@proxy":     "[secret]",
		"http://u:p w@proxy":      "[secret]",
	} {
		if got := ProxyURL(text).String(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if u := ProxyURL("http://u:p%40w@proxy:3128").Reveal(); u.Host != "proxy:3128" || u.User.String() != "u:p%40w" {
		t.Errorf("Reveal gives %+v", u)
	}
	if u := ProxyURL("").Reveal(); u != nil {
		t.Errorf("Reveal of none gives %+v", u)
	}
}

func TestDatabaseURLUnverified(t *testing.T) {
	for url, want := range map[string][]string{
		"":                                     nil,
		"postgres://syncer@localhost:5432/app": nil,
		"postgres://syncer@127.0.0.1/app?sslmode=disable":             nil,
		"host=/run/postgresql user=syncer dbname=app":                 nil,
		"postgres://syncer@db.example/app":                            {"db.example:5432"},
		"postgres://syncer@db.example/app?sslmode=require":            {"db.example:5432"},
		"postgres://a@b.example:1,c.example:2/app?sslmode=prefer":     {"b.example:1", "c.example:2"},
		"host=db.example user=syncer dbname=app sslmode=disable":      {"db.example:5432"},
		"postgres://syncer@db.example/app?sslmode=verify-full":        nil,
		"postgres://syncer@b.example,c.example/app?sslmode=verify-ca": nil,
	} {
		if diff := cmp.Diff(want, DatabaseURL(url).Unverified()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "key"), "from-file\r\n", 0o600)
	write(t, filepath.Join(dir, "url"), "postgres://u:pw@other/app\n", 0o600)
	path := filepath.Join(dir, "config.toml")
	write(t, path, edit(t,
		`url = "postgres://syncer@localhost/app"`, `url_file = "url"`,
		`secret_key = "tencent-key"`, `secret_key_file = "key"`,
		`secret = "openim-secret"`, `secret_file = '`+dir+`/key'`), 0o644)
	c, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Database.URL.Reveal(), c.Apps[0].Tencent.SecretKey.Reveal(), c.Apps[1].OpenIM.Secret.Reveal()}
	if diff := cmp.Diff([]string{"postgres://u:pw@other/app", "from-file", "from-file"}, got); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings %q, want none: no secret stands in the file itself", c.Warnings)
	}
}

func TestBadSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), "\n", 0o600)
	write(t, filepath.Join(dir, "lines"), "hunter2\nhunter2\n", 0o600)
	write(t, filepath.Join(dir, "badurl"), "postgres://u:hunter2@db:port/app\n", 0o600)
	write(t, filepath.Join(dir, "blank"), "hunter2 \n", 0o600)
	write(t, filepath.Join(dir, "marked"), "\ufeffhunter2\n", 0o600)
	write(t, filepath.Join(dir, "long"), strings.Repeat("hunter2", maxSecret), 0o600)
	for name, c := range map[string]struct{ edit, want string }{
		"missing":  {`secret_key_file = "none"`, `:12: apps[0].tencent.secret_key_file: cannot be read: open ` + dir + `/none: no such file or directory`},
		"folder":   {`secret_key_file = "."`, `:12: apps[0].tencent.secret_key_file: cannot be read: read ` + dir + `: is a directory`},
		"empty":    {`secret_key_file = "empty"`, `:12: apps[0].tencent.secret_key_file: the file ` + dir + `/empty is empty`},
		"no name":  {`secret_key_file = ""`, `:12: apps[0].tencent.secret_key_file: names no file`},
		"no text":  {`secret_key_file = 5`, `:12: apps[0].tencent.secret_key_file: must be a file's name in quotes, is a whole number`},
		"lines":    {`secret_key_file = "lines"`, `:12: apps[0].tencent.secret_key_file: the file ` + dir + `/lines holds more than one line; it must hold the value alone`},
		"blank":    {`secret_key_file = "blank"`, `:12: apps[0].tencent.secret_key_file: the file ` + dir + `/blank begins or ends with a blank, which is part of no secret; take it out`},
		"marked":   {`secret_key_file = "marked"`, `:12: apps[0].tencent.secret_key_file: the file ` + dir + `/marked begins with a byte order mark; save it as UTF-8 without one`},
		"too long": {`secret_key_file = "long"`, `:12: apps[0].tencent.secret_key_file: cannot be read: read ` + dir + `/long: more than 65536 bytes`},
		"both":     {"secret_key = \"hunter2\"\nsecret_key_file = \"lines\"", `:12: apps[0].tencent.secret_key: both secret_key and secret_key_file are given; keep one`},
		"value in place of a name": {`secret_key_file = "hunter2hunter2hunter2hunter2"`,
			`:12: apps[0].tencent.secret_key_file: names no file that can be read; if this is the value itself, write it as secret_key`},
		"none": {"", `:10: apps[0].tencent.secret_key: is missing: give secret_key, secret_key_file or the environment variable SYNCER_APPS_MAIN_TENCENT_SECRET_KEY`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "config.toml")
			write(t, path, edit(t, `secret_key = "tencent-key"`, c.edit), 0o600)
			_, err := Load(path, nil)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(path+c.want, err.Error()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	write(t, filepath.Join(dir, "open"), "tencent-key\n", 0o644)
	write(t, filepath.Join(dir, "ours"), "tencent-key\n", 0o640)
	withPassword := edit(t, "syncer@localhost", "syncer:hunter2@localhost")
	shared := edit(t, "[[apps]]\nname = \"chat\"", "[[apps]]\nname = \"two\"\nprovider = \"tencent\"\n"+
		"tencent = { sdk_app_id = 1400000000, secret_key = \"x\", region = \"tokyo\", timeout = \"25s\" }\n[[apps]]\nname = \"chat\"")
	holds := path + " can be read by everybody and holds "
	advice := ": chmod 600 it, or move secrets to files of their own (…_file)"
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want []string
	}{
		"readable by all":        {withPassword, 0o644, []string{holds + "database.url, apps[0].tencent.secret_key, apps[1].openim.secret" + advice}},
		"no password in the URL": {minimal, 0o604, []string{holds + "apps[0].tencent.secret_key, apps[1].openim.secret" + advice}},
		"readable by the group":  {withPassword, 0o640, nil},
		"a secret's file readable by all": {edit(t, `secret_key = "tencent-key"`, `secret_key_file = "open"`), 0o600, []string{
			filepath.Join(dir, "open") + " can be read by everybody and holds apps[0].tencent.secret_key: chmod 600 it"}},
		"a secret's file readable by the group": {edit(t, `secret_key = "tencent-key"`, `secret_key_file = "ours"`), 0o600, nil},
		"metrics for everybody": {edit(t, "[users]", "[http]\nlisten = \"0.0.0.0:9464\"\n[users]"), 0o600, []string{
			"http.listen (0.0.0.0:9464) is reached from other machines, and without http.token everybody there reads the metrics"}},
		"metrics for who has the token": {edit(t, "[users]", "[http]\nlisten = \"0.0.0.0:9464\"\npprof = true\ntoken = \"s3cret\"\n[users]"), 0o600, nil},
		"http in one's own network":     {edit(t, `"https://10.0.0.7:10002/"`, "\"http://10.0.0.7:10002/\"\nallow_http = true"), 0o600, nil},
		"more calls than the documents allow": {edit(t, `secret_key = "tencent-key"`, "secret_key = \"tencent-key\"\npresence_rate = 250\naccounts_rate = 100"), 0o600, []string{
			`apps[0].tencent.presence_rate (250) is above the documented limit of 200 calls per second: unless the console has raised it, Tencent refuses calls and syncer slows down`}},
		"one app of two names": {shared, 0o600, []string{
			`apps "main" and "two" have the same sdk_app_id 1400000000 and share its limit: their rates together must stay below it`,
			`sweep.stop_grace (20s) is shorter than apps[1].tencent.timeout (25s): a stop can cut off a call in flight, whose page is then done again`}},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, path, c.text, c.mode)
			got, err := Load(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}
