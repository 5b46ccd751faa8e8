package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProblems(t *testing.T) {
	for _, c := range problemCases {
		t.Run(c.name, func(t *testing.T) {
			text := c.text
			if text == "" {
				text = edit(t, c.edits...)
			}
			_, _, err := bind("config.toml", []byte(text), nil)
			if _, ok := errors.AsType[Problems](err); !ok {
				t.Fatalf("error %v, want Problems", err)
			}
			if diff := cmp.Diff(c.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever is wrong around them, no secret and no password is repeated.
func TestProblemsHoldNoSecret(t *testing.T) {
	const secret = "hunter2hunter2"
	urls := []string{
		secret, "postgres://u:" + secret + "@h:port/db", "postgres://u:" + secret + "/@#h/db", "postgres//u:" + secret + "@h/db",
		"mysql://u:" + secret + "@h/db", "host=h password=" + secret + " port=x", "host=h password='" + secret, "postgres://u:%" + secret + "@h",
		"postgres://u@h/db?sslmode=" + secret, "postgres://u@h/db?target_session_attrs=" + secret, "postgres://u@h/db?connect_timeout=" + secret,
		"postgres://u@h/db?sslrootcert=/none password=" + secret, "postgres://u:`: " + secret + " (invalid port@h:x/db", "postgres://u@h/db?service=" + secret,
		"postgres://u:p@" + secret + "@h/db", "postgres://u:/" + secret + "@h/db", "postgresql://u:1/" + secret + "@h/db", "postgres://u:1?" + secret + "@h/db",
		"postgres://u@h/db?pool_max_conns=" + secret, "postgres://u@h/db?channel_binding=" + secret, "postgres://u:" + secret + "@h:1,h:x/db",
	}
	var texts []string
	for i, u := range urls {
		q := "'''" + u + "'''"
		texts = append(texts,
			edit(t, `"postgres://syncer@localhost/app"`, q),
			edit(t, `table = "users"`, "table = \"users\"\nurl = "+q),
			edit(t, `"https://10.0.0.7:10002/"`, "'''https://u:"+u+"@h?x'''"))
		if i > 0 { // one word could be a file's name, and is shown
			texts = append(texts, edit(t, `url = "postgres://syncer@localhost/app"`, "url_file = "+q))
		}
	}
	for _, wrong := range []string{
		`secret_key = ["` + secret + `"]`, `secret_key = { "x" = "` + secret + `" }`, `secret_key = '` + secret, `secret_key = ` + secret,
		`secret_key = "` + secret + `\q"`, `secret_key_file = "` + secret + secret + `"`, "secret_key = \"" + secret + "\"\nsecret_key_file = \"x\"",
		`secret_key = "\u0000` + secret + `"`, "secret_key = \"" + secret + "\"\nsecret_key = \"" + secret + "\"", `secret_kye = "` + secret + `"`,
		"secret_key = \"" + secret + "\"\nregion = \"x\"",
	} {
		texts = append(texts, edit(t, `secret_key = "tencent-key"`, wrong))
	}
	refused := 0
	for _, text := range texts {
		_, _, err := bind("config.toml", []byte(text), nil)
		if err == nil {
			continue // some of the URLs can be read after all
		}
		refused++
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the secret shows in\n%v\nof\n%s", err, text)
		}
		if _, _, err := bind("config.toml", []byte(minimal), []string{"SYNCER_DATABASE_URL=" + urls[refused%len(urls)]}); err != nil &&
			strings.Contains(err.Error(), secret) {
			t.Errorf("the secret shows in\n%v", err)
		}
	}
	if refused < len(texts)*3/4 {
		t.Errorf("only %d of %d texts are refused: the test looks at nothing", refused, len(texts))
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"range_users", "page_users", "workers", "url", "url_file"}
	for name, want := range map[string]string{
		"page_user": "page_users", "pageusers": "page_users", "ulr": "url", "worker": "workers", "wrokers": "workers", "timeout": "", "": "",
	} {
		if got := Nearest(name, keys); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
