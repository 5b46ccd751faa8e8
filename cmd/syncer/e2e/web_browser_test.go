//go:build browser

package e2e

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
)

// livePages are the pages that the browser opens, by the name of their picture.
func (w *world) livePages() map[string]string {
	return map[string]string{
		"overview":      "/",
		"overview-week": "/?range=7d",
		"app":           "/app/main?range=7d",
		"app-outage":    "/app/chat",
		"run":           "/run/" + w.text(`SELECT max(run_id)::text FROM syncer.sync_run WHERE app_id = 2 AND status = 'running'`),
		"run-failed":    "/run/" + w.text(`SELECT max(run_id)::text FROM syncer.sync_run WHERE status = 'failed'`),
		"failures":      "/failures",
		"user":          "/user/user00009",
		"user-odd":      "/user?id=" + url.QueryEscape("user/with:odd<id>"),
		"nothing":       "/run/999999",
	}
}

// shownJS is what a page shows of the apps, as text.
const shownJS = `Object.fromEntries([...document.querySelectorAll(".card")].map((card) => [card.querySelector("h2 a").textContent, card.querySelector(".big").textContent.replace(/[^0-9–]/g, "")]))`

// wideJS is what is wider than its place: the window, or a card or panel.
const wideJS = `[...document.querySelectorAll("body *")].filter((e) => {
	const place = e.parentElement.closest(".card, .panel") || document.documentElement;
	const limit = place === document.documentElement ? innerWidth : place.getBoundingClientRect().right;
	return e.getBoundingClientRect().right > limit + 1 && !e.parentElement.closest(".scroll") && !e.closest("svg");
}).slice(0, 3).map((e) => e.outerHTML.slice(0, 200)).join("\n")`

// TestLiveInBrowser opens the live pages as a person does: on a desktop, dark, and on a
// phone. They show what SQL returns and renew themselves in place, nothing is complained
// of, and nothing is asked of another server.
func TestLiveInBrowser(t *testing.T) {
	w := newWorld(t, worldOptions{})
	w.run(exitDone, "migrate", "up")
	w.seed("report_week.sql")
	w.seed("web.sql")
	w.write("database_url", w.withParameter("syncer.as_of", "2026-10-25T21:40:00Z"))
	const token = "a token of the pages"
	w.write("web_token", token)
	p := w.start("SYNCER_WEB_LISTEN=127.0.0.1:0", "SYNCER_WEB_TOKEN_FILE=web_token", "SYNCER_WEB_USER_PAGES=true", "web")
	site := p.web()

	b := openBrowser(t)
	call(b, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{
		"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("anyone:"+token)),
	}})
	open := func(path string) {
		t.Helper()
		get(b, chromedp.Navigate(site+path))
		get(b, chromedp.WaitReady(chromedp.CSS("footer")))
		if wide := get(b, chromedp.Evaluate[string](wideJS)); wide != "" {
			t.Errorf("%s is wider than the window: %s", path, wide)
		}
	}
	pages := w.livePages()
	everyPage := func(suffix string) {
		t.Helper()
		for name, path := range pages {
			if *screenshots != "" || name == "overview" || name == "app" || name == "user" || name == "failures" || name == "run" {
				open(path)
				b.picture("live-"+name+suffix, chromedp.FullScreenshot(100))
			}
		}
	}
	if *screenshots != "" {
		get(b, chromedp.EmulateViewport(1280, 430))
		open("/user/user00009")
		b.picture("live-week", chromedp.CaptureScreenshot())
	}
	get(b, chromedp.EmulateViewport(1280, 900))
	everyPage("")
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
	everyPage("-dark")
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	get(b, chromedp.EmulateViewport(375, 812, chromedp.EmulateScale(2)))
	everyPage("-phone")
	get(b, chromedp.EmulateViewport(1280, 900))

	// Without scripts.
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	get(b, chromedp.Navigate(site+"/"))
	get(b, chromedp.WaitReady(chromedp.CSS("footer")))
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})
	if diff := cmp.Diff(w.onlineNow(), get(b, chromedp.Evaluate[map[string]string](shownJS))); diff != "" {
		t.Errorf("users online without scripts, as in SQL (-) and on the page (+):\n%s", diff)
	}

	// It renews itself in place.
	open("/")
	get(b, chromedp.WaitReady(chromedp.CSS("html[data-ready]")))
	if diff := cmp.Diff(w.onlineNow(), get(b, chromedp.Evaluate[map[string]string](shownJS))); diff != "" {
		t.Errorf("users online, as in SQL (-) and on the page (+):\n%s", diff)
	}
	cells := w.text(`SELECT count(DISTINCT date_bin('30 min', started_at, '2000-01-01'))::text FROM syncer.sync_run WHERE app_id = 1 AND kind = 'presence' AND started_at >= '2026-10-24 22:00Z'`)
	if got := get(b, chromedp.Evaluate[string](`String([...document.querySelectorAll(".grid tr")].find((row) => row.querySelector("th").textContent.trim() === "main presence").querySelectorAll("svg a").length)`)); got != cells {
		t.Errorf("the grid has %s cells with runs of main, want %s", got, cells)
	}
	get(b, chromedp.Evaluate[bool](`window.stays = document.getElementById("instances").stays = true`))
	w.exec(`UPDATE syncer.presence_count SET users = users + 1111 WHERE state = 'online' AND platform = 'all' AND run_id = (SELECT max(run_id) FROM syncer.presence_count WHERE app_id = 1)`)
	want := w.onlineNow()
	get(b, chromedp.Poll[chromedp.Void](fmt.Sprintf(`(%s).main === %q`, shownJS, want["main"])))
	if !get(b, chromedp.Evaluate[bool](`window.stays === true && document.getElementById("instances").stays === true`)) {
		t.Error("the page, or a part that has not changed, was replaced")
	}

	b.wantOwnRequests(site, pages["nothing"])
}

// onlineNow returns the users online of each app, – where that is not known.
func (w *world) onlineNow() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for line := range strings.SplitSeq(w.text(`
SELECT string_agg(a.name || ' ' || coalesce(c.online::text, '–'), ',')
FROM syncer.app AS a
LEFT JOIN LATERAL (SELECT online FROM syncer.presence_concurrency WHERE app_id = a.app_id ORDER BY observed_at DESC LIMIT 1) AS c ON true`), ",") {
		name, online, _ := strings.Cut(line, " ")
		all[name] = online
	}
	return all
}

// wantOwnRequests checks that nothing was complained of, but that the page of what is
// not there was not found, and that all requests went to the site.
func (b *browser) wantOwnRequests(site, absent string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, complaint := range b.complaints {
		if !strings.HasSuffix(complaint, "404 (Not Found) "+site+absent) {
			b.t.Errorf("complaint: %s", complaint)
		}
	}
	for _, request := range b.requests {
		if !strings.HasPrefix(request, site+"/") && !strings.HasPrefix(request, "data:") {
			b.t.Errorf("request: %s", request)
		}
	}
}
