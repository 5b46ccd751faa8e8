//go:build browser

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

var screenshots = flag.String("screenshots", "", "put pictures of the page into this folder")

// browser is a headless Chromium, and what it complained of or asked for.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	complaints []string
	requests   []string
}

func openBrowser(t *testing.T) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, runtime.Enable, cdp.Empty{})
	call(b, log.Enable, cdp.Empty{})
	return b
}

// call runs a command of the browser's protocol.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// get runs an action that returns a value.
func get[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		b.complaints = append(b.complaints, fmt.Sprintf("console.%s %v", e.Type, e.Args))
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, fmt.Sprintf("%s %v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		b.complaints = append(b.complaints, e.Entry.Text+" "+e.Entry.URL)
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	}
}

// open opens a page of a file and waits until its charts are drawn.
func (b *browser) open(path string) (url string) {
	b.t.Helper()
	url = "file://" + path
	get(b, chromedp.Navigate(url))
	get(b, chromedp.WaitReady(chromedp.CSS("html[data-drawn]")))
	return url
}

// drawn is a chart as the browser holds it.
type drawn struct {
	Title  string       `json:"title"`
	Series [][]*float64 `json:"series"` // without x
	Ink    int          `json:"ink"`    // pixels that are not blank
	Wide   bool         `json:"wide"`   // wider than the window
}

const drawnJS = `[...document.querySelectorAll(".chart")].map((place) => {
	// A copy, because reading makes a canvas slower and the browser says so.
	const { width, height } = place.plot.ctx.canvas;
	const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
	copy.drawImage(place.plot.ctx.canvas, 0, 0);
	const pixels = copy.getImageData(0, 0, width, height).data;
	let ink = 0;
	for (let i = 3; i < pixels.length; i += 4) if (pixels[i] > 0) ink++;
	return {
		title: place.getAttribute("aria-label"), series: place.plot.data.slice(1).map((s) => [...s]), ink,
		wide: document.documentElement.scrollWidth > innerWidth,
	};
})`

func (b *browser) charts() map[string]drawn {
	b.t.Helper()
	charts := map[string]drawn{}
	for _, c := range get(b, chromedp.Evaluate[[]drawn](drawnJS)) {
		if c.Ink < 1000 {
			b.t.Errorf("the chart %q is blank: %d pixels", c.Title, c.Ink)
		}
		if c.Wide {
			b.t.Errorf("the page is wider than the window")
		}
		charts[c.Title] = c
	}
	return charts
}

// picture keeps what is seen, if -screenshots is set.
func (b *browser) picture(name string, seen chromedp.Action[[]byte]) {
	b.t.Helper()
	if *screenshots == "" {
		return
	}
	png := get(b, seen)
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// numbers reads rows of numbers, turned: a list for each column.
func (w *world) numbers(sql string) [][]*float64 {
	w.t.Helper()
	rows := query(w, func(row pgx.CollectableRow) ([]*float64, error) {
		values := make([]*float64, len(row.FieldDescriptions()))
		places := make([]any, len(values))
		for i := range values {
			places[i] = &values[i]
		}
		return values, row.Scan(places...)
	}, sql)
	var columns [][]*float64
	for _, row := range rows {
		for i, v := range row {
			if i == len(columns) {
				columns = append(columns, nil)
			}
			columns[i] = append(columns[i], v)
		}
	}
	return columns
}

// TestPageInBrowser opens the page of all reports as a person does: its charts
// are drawn, hold what the database says, nothing is complained of and nothing
// is asked of the network.
func TestPageInBrowser(t *testing.T) {
	w := seeded(t)
	w.exec(`UPDATE syncer.app SET name = '</script><script>alert("' WHERE name = 'chat'`)
	page := filepath.Join(w.dir, "page.html")
	w.run(exitDone, "report", "all", "--users", "--format", "html", "--output", page)
	b := openBrowser(t)
	get(b, chromedp.EmulateViewport(1280, 900))
	url := b.open(page)

	charts := b.charts()
	// Every bucket is an hour that holds one run, or lies in the gap; the first
	// hour of the gap has the minute of a run, and the 65 runs one each.
	hours := w.numbers(`
SELECT c.online::float8, c.online::float8, c.online::float8, c.push_online::float8
FROM generate_series('2026-10-24 00:00Z'::timestamptz, '2026-10-26 23:00Z', '1 h') AS hour
LEFT JOIN syncer.presence_concurrency AS c
    ON c.app = 'main' AND c.observed_at >= hour AND c.observed_at < hour + interval '1 h'
ORDER BY hour`)
	w.exec(`ALTER DATABASE ` + pgx.Identifier{w.text("SELECT current_database()::text")}.Sanitize() + ` SET syncer.as_of = '2026-10-27 00:00Z'`)
	w.db.Reset()
	for title, want := range map[string][][]*float64{
		"Users online: main": hours,
		"Active users: main": w.numbers(`
SELECT daily::float8, weekly::float8, monthly::float8
FROM syncer.active_users('2026-10-21', '2026-10-26', 'UTC') WHERE app = 'main' ORDER BY day`),
		"Sessions begun: main": w.numbers(`
SELECT count(*)::float8 FROM syncer.presence_session WHERE app = 'main' GROUP BY started_at::date ORDER BY started_at::date`),
		"Platforms of the users online: main": w.numbers(`
SELECT sum(users)::float8 / 96 FROM syncer.presence_count WHERE app_id = 1 AND state = 'online' AND platform <> 'all' GROUP BY platform ORDER BY platform`),
		"Accounts: main": w.numbers(`SELECT * FROM (VALUES (2::float8, 2::float8), (3, 1), (2, 2)) AS v`),
		"How long runs took: main, accounts": w.numbers(`
SELECT extract(epoch FROM finished_at - started_at)::float8 FROM syncer.sync_run WHERE app_id = 1 AND kind = 'accounts' ORDER BY run_id`),
		"Not observed, by day: main": w.numbers(`SELECT s FROM unnest('{0,0,0,0,25140,0}'::float8[]) AS s`),
	} {
		if diff := cmp.Diff(want, charts[title].Series); diff != "" {
			t.Errorf("%s, as in the database (-) and in the chart (+):\n%s", title, diff)
		}
	}
	b.picture("desktop", chromedp.FullScreenshot(100))

	// Dark, and on a phone: drawn anew.
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
	b.charts()
	b.picture("dark", chromedp.FullScreenshot(100))
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	get(b, chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2)))
	get(b, chromedp.Poll[chromedp.Void](`[...document.querySelectorAll(".chart")].every((place) => place.plot.width === place.clientWidth && place.clientWidth < 390)`))
	if phone := b.charts(); len(phone) != len(charts) {
		t.Errorf("%d charts on a phone, want %d", len(phone), len(charts))
	}
	b.picture("phone", chromedp.FullScreenshot(100))

	b.wantQuiet(url)
}

// wantQuiet checks that nothing was complained of, and nothing asked for but the
// page itself.
func (b *browser) wantQuiet(url string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if diff := cmp.Diff([]string(nil), b.complaints); diff != "" {
		b.t.Errorf("complaints (-want +got):\n%s", diff)
	}
	var others []string
	for _, request := range b.requests {
		if request != url && !strings.HasPrefix(request, "data:") {
			others = append(others, request)
		}
	}
	if diff := cmp.Diff([]string(nil), others); diff != "" {
		b.t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestWeekInBrowser opens the page of a week that looks like life.
func TestWeekInBrowser(t *testing.T) {
	w := newWorld(t, worldOptions{})
	w.run(exitDone, "migrate", "up")
	w.seed("report_week.sql")
	w.write("database_url", w.withParameter("syncer.as_of", "2026-10-25T21:40:00Z"))
	page := filepath.Join(w.dir, "page.html")
	w.run(exitDone, "report", "all", "--format", "html", "--output", page)
	b := openBrowser(t)
	get(b, chromedp.EmulateViewport(1280, 1090))
	url := b.open(page)
	want := w.numbers(`
SELECT avg(c.online)::float8
FROM generate_series('2026-10-19 00:00Z'::timestamptz, '2026-10-25 21:00Z', '1 h') AS hour
LEFT JOIN syncer.presence_concurrency AS c ON c.observed_at >= hour AND c.observed_at < hour + interval '1 h'
GROUP BY hour
ORDER BY hour`)
	got := b.charts()["Users online: main"].Series
	if len(got) != 3 {
		t.Fatalf("the chart of the users online has %d lines, want 3", len(got))
	}
	if diff := cmp.Diff(want, got[2:]); diff != "" {
		t.Errorf("average of the users online, as in the database (-) and in the chart (+):\n%s", diff)
	}
	b.picture("page", chromedp.CaptureScreenshot())
	const heatJS = `document.querySelectorAll(".heat td").length + " " + document.querySelectorAll(".heat .h9").length`
	if heat := get(b, chromedp.Evaluate[string](heatJS)); !strings.HasPrefix(heat, "168 ") || strings.HasSuffix(heat, " 0") {
		t.Errorf("cells of the heat map, and the darkest: %s", heat)
	}
	// What the button of a table saves is what the table shows.
	const savedJS = `(async () => {
		let blob;
		URL.createObjectURL = (b) => { blob = b; return "data:,"; };
		document.querySelector(".save").click();
		return (await blob.text()).split("\n")[1];
	})()`
	if saved, want := get(b, chromedp.Evaluate[string](savedJS, chromedp.EvalAwaitPromise)), "2026-10-19 Mon,0,176,514,20:00,\"3,000\","; saved != want {
		t.Errorf("the first row saved is %s, want %s", saved, want)
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
	b.charts()
	b.picture("page-dark", chromedp.CaptureScreenshot())
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	get(b, chromedp.EmulateViewport(375, 1800))
	get(b, chromedp.Poll[chromedp.Void](`[...document.querySelectorAll(".chart")].every((place) => place.plot.width === place.clientWidth && place.clientWidth < 375)`))
	b.charts()
	b.picture("page-phone", chromedp.CaptureScreenshot())
	b.wantQuiet(url)
}
