package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// webAddress finds the address of the pages in a log.
var webAddress = regexp.MustCompile(`"address":"([^"]+)","[^}]*"message":"pages and read API"`)

// web returns the address of the pages of a process, once it serves them.
func (p *process) web() string {
	p.world.t.Helper()
	p.said("pages and read API")
	found := webAddress.FindStringSubmatch(p.stderr.String())
	if found == nil {
		p.world.t.Fatalf("syncer %v does not say where its pages are\n%s", p.args, p.stderr.String())
	}
	return "http://" + found[1]
}

// page requests a page with a password.
func (w *world) page(url, password string) (status int, text string) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.ctx, http.MethodGet, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	request.SetBasicAuth("anyone", password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// TestWeb holds that syncer web serves pages and API with three sections of the
// configuration and a reader's role, that syncer run serves the same, and what both say
// of a configuration that they cannot use.
func TestWeb(t *testing.T) {
	w := seeded(t)
	w.exec(`ALTER DATABASE ` + w.text(`SELECT quote_ident(current_database())`) + ` SET syncer.as_of = '2026-10-27 00:00Z'`)
	w.db.Reset()
	w.exec(`UPDATE syncer.presence_snapshot SET last_online_after = since_after, last_online_at = since WHERE user_id = 'ben<b>'`)
	role := w.newRole()
	w.run(exitDone, "grant-reader", role)
	const token = "a token of the pages"
	w.write("web_token", token+"\n")
	w.write("reader_url", w.dbURL+"&role="+url.QueryEscape(role))
	const sections = "[database]\nurl_file = \"database_url\"\n[report]\ntimezone = \"UTC\"\n"
	w.write("web.toml", sections+"[web]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"web_token\"\nuser_pages = true\ndatabase_url_file = \"reader_url\"\n")
	w.write("off.toml", sections)
	w.write("open.toml", sections+"[web]\nlisten = \"0.0.0.0:0\"\n")

	online := w.text(`SELECT online::text FROM syncer.presence_concurrency WHERE app = 'main' ORDER BY observed_at DESC LIMIT 1`)
	wantPages := func(p *process) {
		t.Helper()
		address := p.web()
		if status, _ := w.page(address+"/", "wrong"); status != http.StatusUnauthorized {
			t.Errorf("with a wrong password: status %d", status)
		}
		for _, target := range []string{"/", "/app/main?range=7d", "/run/1", "/failures", "/user/ann", "/v1/presence?app=main&user=ann", "/v1/history?app=main&user=ann"} {
			if status, text := w.page(address+target, token); status != http.StatusOK || strings.Contains(text, "Postgres refuses") {
				t.Errorf("%s: status %d: %s", target, status, text)
			}
		}
		_, text := w.page(address+"/v1/online?app=main", token)
		var answer struct {
			Apps []struct{ Online json.Number }
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Apps) != 1 || answer.Apps[0].Online.String() != online {
			t.Errorf("%s users are online, the answer is %s", online, text)
		}
	}
	p := w.start("web", "--config", "web.toml")
	wantPages(p)
	wantExamples(t, func(target string) string {
		_, text := w.page(p.web()+target, token)
		return text
	})
	p.signal(syscall.SIGTERM)
	p.wait(exitDone)

	daemon := w.daemon("SYNCER_WEB_LISTEN=127.0.0.1:0", "SYNCER_WEB_TOKEN_FILE=web_token", "SYNCER_WEB_USER_PAGES=true", "SYNCER_REPORT_TIMEZONE=UTC")
	wantPages(daemon)
	if status, text := w.get(daemon.admin() + "/metrics"); status != http.StatusOK || !strings.Contains(text, `syncer_web_requests_total{code="200",route="/v1/presence"} 1`) {
		t.Errorf("metrics: status %d: %s", status, text)
	}
	daemon.stop()

	_, stderr := w.run(exitUsage, "web", "--config", "off.toml")
	wantText(t, stderr, "[web] listen is not set", `listen = \"127.0.0.1:9465\"`)
	_, stderr = w.run(exitUsage, "web", "--config", "open.toml")
	wantText(t, stderr, "open.toml:6: web.listen: 0.0.0.0:0 is reached from other machines", "token_file in [web]")
}

var updateExamples = flag.Bool("update-examples", false, "write the answers into docs/web.md")

// example finds a request of docs/web.md and its answer.
var example = regexp.MustCompile(`(?s)'http://127\.0\.0\.1:9465(/v1/[^']*)' \| jq\n(.*?)\n` + "```")

// wantExamples checks the answers in docs/web.md.
func wantExamples(t *testing.T, get func(target string) string) {
	t.Helper()
	const path = "../../../docs/web.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := example.FindAllStringSubmatch(string(text), -1)
	if len(found) != 4 {
		t.Errorf("%d examples in docs/web.md, want 4", len(found))
	}
	fresh := string(text)
	for _, e := range found {
		var b bytes.Buffer
		if err := json.Indent(&b, []byte(strings.TrimSpace(get(e[1]))), "", "  "); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e[2], b.String()); diff != "" && !*updateExamples {
			t.Errorf("%s, in docs/web.md (-) and as answered (+); -update-examples writes it:\n%s", e[1], diff)
		}
		fresh = strings.Replace(fresh, e[2], b.String(), 1)
	}
	if *updateExamples {
		if err := os.WriteFile(path, []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
