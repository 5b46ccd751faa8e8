package e2e

import (
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/imsim"
)

// TestTraces: a run is one tree of spans, sent where the configuration says, with
// the headers that it requires.
func TestTraces(t *testing.T) {
	t.Parallel()
	c := newCollector(t, false)
	w := newWorld(t, worldOptions{dbURL: canaryDatabase(t), users: 1200, change: 0.1, config: noJobs + `
[traces]
endpoint = "` + c.url + `"
headers  = "Authorization: Bearer CANARY-PASSWORD"
`})
	w.run(exitDone, "migrate", "up")
	stdout, _ := w.run(exitDone, "config", "check", "--connect")
	wantText(t, stdout, "traces of 1 of the runs to "+c.url+"/v1/traces\n", "ok      traces "+c.url+"/v1/traces\n")
	stdout, _ = w.run(exitFailed, "SYNCER_TRACES_ENDPOINT=http://127.0.0.1:1", "config", "check", "--connect")
	wantText(t, stdout, "FAILED  traces http://127.0.0.1:1/v1/traces: dial tcp 127.0.0.1:1: connect: connection refused\n        check [traces] endpoint")
	w.run(exitPartial, "backfill", "--app", "main", "--job", "presence")
	spans, requests := c.received()
	if diff := cmp.Diff(wantTree, tree(t, spans)); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
	for _, r := range requests {
		if r != "POST /v1/traces application/x-protobuf Bearer CANARY-PASSWORD" {
			t.Errorf("request %q", r)
		}
	}
	names, statements, keys := map[string]string{}, map[string]bool{}, map[string]map[string]bool{}
	for _, s := range spans {
		names[s.id] = s.name
		for key := range s.attributes {
			if keys[s.scope] == nil {
				keys[s.scope] = map[string]bool{}
			}
			keys[s.scope][key] = true
		}
	}
	for _, s := range spans {
		if s.scope == statementScope {
			statements[names[s.parent]+": "+s.name] = true
		}
	}
	for _, want := range []string{"page: SELECT", "call: INSERT", "load: batch start", "save: BEGIN", "save: COMMIT", `save: copy_from "syncer"."presence_history"`} {
		if !statements[want] {
			t.Errorf("there is no statement %q among %v", want, slices.Sorted(maps.Keys(statements)))
		}
	}
	// Neither a URL nor a statement's text is among them.
	for scope, want := range map[string][]string{
		statementScope: {"db.collection.name", "db.operation.batch.size", "db.system.name", "pgx.rows_affected"},
		requestScope:   {"http.request.method", "http.response.status_code", "network.protocol.version", "server.address", "server.port"},
	} {
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(keys[scope]))); diff != "" {
			t.Errorf("attributes of %s (-want +got):\n%s", scope, diff)
		}
	}
}

// wantTree is a run of three pages in two ranges. A range ends with a page that
// is not full: the third of the first one is empty.
const wantTree = `run trigger=backfill status=partial users=1200 changed=1183 failed=17 calls=3 retries=0
  plan
  range range=1 attempt=1 users=1000 changed=986 failed=14 calls=2 retries=0
    page range=1 users=500 changed=493 failed=7 calls=1 retries=0
      call users=500 failed=7 calls=1 (waited for its call time)
        POST /v4/openim/query_online_status http.response.status_code=200
      load
      save
    page range=1 users=500 changed=493 failed=7 calls=1 retries=0
      call users=500 failed=7 calls=1 (waited for its call time)
        POST /v4/openim/query_online_status http.response.status_code=200
      load
      save
  range range=2 attempt=1 users=200 changed=197 failed=3 calls=1 retries=0
    page range=2 users=200 changed=197 failed=3 calls=1 retries=0
      call users=200 failed=3 calls=1 (waited for its call time)
        POST /v4/openim/query_online_status http.response.status_code=200
      load
      save
`

// TestTracesOfFailures: what failed says why, by class and code, with nothing of
// the users whom it is about.
func TestTracesOfFailures(t *testing.T) {
	t.Parallel()
	c := newCollector(t, false)
	w := newWorld(t, worldOptions{users: 8, config: noJobs})
	w.run(exitDone, "migrate", "up")
	for _, f := range []imsim.Fault{
		{Kind: imsim.FaultStatus, Status: 502, Body: "u00042", Times: 1},
		{Kind: imsim.FaultReset, Times: 1, After: 1},
		{Kind: imsim.FaultPoison, IDs: []string{"u00003"}},
	} {
		if _, err := w.sim.AddFault(f); err != nil {
			t.Fatal(err)
		}
	}
	traced := "SYNCER_TRACES_ENDPOINT=" + c.url
	w.run(exitPartial, traced, "backfill", "--app", "main", "--job", "presence")
	w.run(exitFailed, traced, "SYNCER_APPS_CHAT_OPENIM_SECRET=wrong-CANARY-OPENIM-SECRET", "backfill", "--app", "chat", "--job", "accounts")
	spans, _ := c.received()
	if diff := cmp.Diff(wantFailures, tree(t, spans)); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// wantFailures is a run whose first two calls fail on their way, and whose batch is
// halved until the offending user is alone; and one that fails as a whole.
const wantFailures = `run trigger=backfill status=partial users=8 changed=7 failed=1 calls=9 retries=8
  plan
  range range=1 attempt=1 users=8 changed=7 failed=1 calls=9 retries=8
    page range=1 users=8 changed=7 failed=1 calls=9 retries=8
      call users=1 failed=0 calls=1 (waited for its call time)
        POST /v4/openim/query_online_status http.response.status_code=200
      call users=1 failed=0 calls=1 class=bad_batch code=90003 http_status=200 (waited for its call time) error: bad_batch 90003
        POST /v4/openim/query_online_status http.response.status_code=200
      call users=2 failed=0 calls=1 (waited for its call time)
        POST /v4/openim/query_online_status http.response.status_code=200
      call users=2 failed=0 calls=1 class=bad_batch code=90003 http_status=200 (waited for its call time) error: bad_batch 90003
        POST /v4/openim/query_online_status http.response.status_code=200
      call users=4 failed=0 calls=1 (waited for its call time)
        POST /v4/openim/query_online_status http.response.status_code=200
      call users=4 failed=0 calls=1 class=bad_batch code=90003 http_status=200 (waited for its call time) error: bad_batch 90003
        POST /v4/openim/query_online_status http.response.status_code=200
      call users=8 failed=0 calls=1 class=bad_batch code=90003 http_status=200 (waited for its call time) error: bad_batch 90003
        POST /v4/openim/query_online_status http.response.status_code=200
      call users=8 failed=0 calls=1 class=transient (waited for its call time) error: transient
        POST /v4/openim/query_online_status error
      call users=8 failed=0 calls=1 class=transient http_status=502 (waited for its call time) error: transient
        POST /v4/openim/query_online_status http.response.status_code=502 error
      load
      save
run trigger=backfill status=failed users=0 changed=0 failed=0 calls=0 retries=0 error: failed
  plan
  range range=1 attempt=1 users=0 changed=0 failed=0 calls=0 retries=0 class=fatal code=1002 http_status=200 error: fatal 1002
    page range=1 users=8 changed=0 failed=0 calls=0 retries=0 class=fatal code=1002 http_status=200 error: fatal 1002
      call users=8 failed=0 calls=0 class=fatal code=1002 http_status=200 (waited for its call time) error: fatal 1002
        POST /auth/get_admin_token http.response.status_code=200
`

// TestTracesOfSuspects: a suspect page says so, and so does its recheck.
func TestTracesOfSuspects(t *testing.T) {
	t.Parallel()
	c := newCollector(t, false)
	w := newWorld(t, worldOptions{users: 300, config: noJobs})
	w.run(exitDone, "migrate", "up")
	sweep := []string{"backfill", "--app", "chat", "--job", "presence"}
	w.run(exitDone, sweep...)
	if _, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultOffline, Times: 2}); err != nil {
		t.Fatal(err)
	}
	w.run(exitDone, append([]string{"SYNCER_TRACES_ENDPOINT=" + c.url, "SYNCER_SWEEP_COLLAPSE_DELAY=100ms"}, sweep...)...)
	spans, _ := c.received()
	if diff := cmp.Diff(wantSuspect, tree(t, spans)); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// wantSuspect is a run whose only page is asked about again, as a range of its own.
const wantSuspect = `run trigger=backfill status=succeeded users=300 changed=0 failed=0 calls=3 retries=0
  plan
  range range=1 attempt=1 users=0 changed=0 failed=0 calls=0 retries=0
    page range=1 users=300 changed=0 failed=0 calls=2 retries=0 verdict=suspect gone=173
      call users=173 failed=0 calls=1 (waited for its call time)
        POST /user/get_users_status http.response.status_code=200
      call users=300 failed=0 calls=1 (waited for its call time)
        POST /auth/get_admin_token http.response.status_code=200
        POST /user/get_users_online_status http.response.status_code=200
      load
      save
  range range=2 attempt=1 users=300 changed=0 failed=0 calls=1 retries=0
    page range=2 users=300 changed=0 failed=0 calls=1 retries=0 verdict=cleared gone=0
      call users=300 failed=0 calls=1 (waited for its call time)
        POST /user/get_users_online_status http.response.status_code=200
      load
      save
`

// TestTracesOfStop: a run that is stopped has its trace, sent before the program ends.
func TestTracesOfStop(t *testing.T) {
	t.Parallel()
	c := newCollector(t, false)
	w := newWorld(t, worldOptions{users: 10, config: noJobs})
	w.run(exitDone, "migrate", "up")
	p := w.start("SYNCER_TRACES_ENDPOINT="+c.url, "SYNCER_APPS_MAIN_TENCENT_BASE_URL=http://127.0.0.1:1", "backfill", "--app", "main", "--job", "presence")
	p.said("failed; it will be retried")
	p.signal(syscall.SIGINT)
	p.wait(exitFailed)
	spans, _ := c.received()
	text := tree(t, spans)
	if first, _, _ := strings.Cut(text, "\n"); first != "run trigger=backfill status=cancelled users=0 changed=0 failed=0 calls=5 retries=4" {
		t.Errorf("no run that was cancelled:\n%s", text)
	}
	// Gone on with, it ends a second time, in the same trace.
	w.run(exitDone, "SYNCER_TRACES_ENDPOINT="+c.url, "backfill", "--app", "main", "--job", "presence", "--resume")
	spans, _ = c.received()
	var ends []string
	for _, s := range spans {
		if s.parent == "" {
			ends = append(ends, s.name+" "+s.attributes["status"])
		}
		if s.trace != spans[0].trace {
			t.Errorf("%s is in another trace", s.name)
		}
	}
	if diff := cmp.Diff([]string{"run cancelled", "run succeeded"}, ends); diff != "" {
		t.Errorf("ends of the run (-want +got):\n%s", diff)
	}
}

// TestTracesJoin: the spans of all processes that work on a run are one trace.
func TestTracesJoin(t *testing.T) {
	t.Parallel()
	c := newCollector(t, false)
	f := newFleet(t, fleetOptions{limit: 200, rate: 40, page: 100, worldOptions: worldOptions{users: 2000, config: noJobs}})
	f.env = append(f.env, "SYNCER_TRACES_ENDPOINT="+c.url)
	f.grow(2)
	runs := 0
	shared := func() bool {
		workers := map[string]string{} // of a trace
		spans, _ := c.received()
		for _, s := range spans {
			if before, ok := workers[s.trace]; s.name == "range" && ok && before != s.process {
				return true
			}
			if s.name == "range" {
				workers[s.trace] = s.process
			}
		}
		return false
	}
	for !shared() { // one alone may have been quick enough
		f.backfill().wait(exitPartial)
		runs++
		if runs > 1 {
			f.eventually("spans come", func() bool { return shared() || runs < 5 })
		}
	}
	f.stop()
	spans, _ := c.received()
	traces := map[string][]span{}
	for _, s := range spans {
		traces[s.trace] = append(traces[s.trace], s)
	}
	if len(traces) != runs {
		t.Errorf("%d runs have %d traces", runs, len(traces))
	}
	for _, of := range traces {
		text := tree(t, of)
		if !strings.HasPrefix(text, "run ") || strings.Count(text, "\n  range ") != 11 || strings.Count(text, "POST") != 20 {
			t.Errorf("not one run of eleven ranges, of which the last is empty:\n%s", text)
		}
	}
}

// TestTracesGetLost: a collector that is away, or hangs, delays nothing,
// and is complained about once.
func TestTracesGetLost(t *testing.T) {
	t.Parallel()
	hanging := newCollector(t, true)
	w := newWorld(t, worldOptions{users: 100, config: noJobs})
	w.run(exitDone, "migrate", "up")
	for endpoint, why := range map[string]string{"http://127.0.0.1:1": "connection refused", hanging.url: "at most for 2s"} {
		_, stderr := w.run(exitDone, "SYNCER_TRACES_ENDPOINT="+endpoint, "backfill", "--app", "chat", "--job", "presence")
		const lost = "traces do not get through"
		if got := strings.Count(stderr, lost); got != 1 || !strings.Contains(stderr, why) {
			t.Errorf("%s: %q is said %d times, and why:\n%s", endpoint, lost, got, stderr)
		}
	}
	w.wantSQL("2", `SELECT count(*) FROM syncer.sync_run WHERE status = 'succeeded'`)

	// Unless an endpoint is configured, and of a run that is not sampled, nothing is
	// sent, whatever OpenTelemetry's own variables say.
	c := newCollector(t, false)
	for _, off := range [][]string{{"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.url}, {"SYNCER_TRACES_ENDPOINT=" + c.url, "SYNCER_TRACES_SAMPLE=0"}} {
		w.run(exitDone, append(off, "OTEL_TRACES_SAMPLER=always_on", "backfill", "--app", "chat", "--job", "presence")...)
	}
	if spans, requests := c.received(); len(spans) > 0 || len(requests) > 0 {
		t.Errorf("%d spans came, in requests %q", len(spans), requests)
	}
}
