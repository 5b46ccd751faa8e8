package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// TestRepeats: what repeats is written at once, and once a minute after; nothing
// is lost of how often it came.
func TestRepeats(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	r := newWarnings(zerolog.New(log))
	r.now = func() time.Time { return now }
	warn := func(app string, err error, rangeNo int) {
		r.warn(app, "failed", err, func(e *zerolog.Event) { e.Int("range", rangeNo) })
	}
	refused := func(port int) error {
		return fmt.Errorf("ask: %w", &imclient.Error{Provider: "openim", API: "check", Text: fmt.Sprintf("dial :%d: refused", port)})
	}
	warn("main", refused(1), 1) // written at once
	warn("main", refused(2), 2)
	warn("chat", refused(1), 3) // another app
	warn("main", &imclient.Error{Provider: "openim", API: "check", HTTPStatus: 503, Text: "HTTP 503"}, 4)
	warn("main", refused(3), 5)
	r.flush(false) // nothing is due
	now = now.Add(repeatEvery)
	r.flush(false) // range 5, for two
	now = now.Add(repeatEvery / 2)
	warn("main", refused(4), 6)
	now = now.Add(repeatEvery / 2)
	warn("main", refused(5), 7) // lets range 6 out, whose minute is over
	r.flush(true)               // and the end range 7
	now = now.Add(repeatEvery)
	r.flush(false)
	warn("main", refused(6), 8) // at once again, after a minute of silence
	want := `{"level":"warn","app":"main","range":1,"error":"ask: openim check: dial :1: refused","message":"failed"}
{"level":"warn","app":"chat","range":3,"error":"ask: openim check: dial :1: refused","message":"failed"}
{"level":"warn","app":"main","range":4,"error":"openim check: HTTP 503","message":"failed"}
{"level":"warn","app":"main","happened_at":"2026-11-22T12:00:00Z","left_out":1,"range":5,"error":"ask: openim check: dial :3: refused","message":"failed"}
{"level":"warn","app":"main","happened_at":"2026-11-22T12:01:30Z","range":6,"error":"ask: openim check: dial :4: refused","message":"failed"}
{"level":"warn","app":"main","happened_at":"2026-11-22T12:02:00Z","range":7,"error":"ask: openim check: dial :5: refused","message":"failed"}
{"level":"warn","app":"main","range":8,"error":"ask: openim check: dial :6: refused","message":"failed"}
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// TestLostDatabase: an outage of the database is a warning when it begins and a line
// with its duration when it ends, whatever fails meanwhile. A users table out of reach
// is no outage of the database.
func TestLostDatabase(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	w := newWarnings(zerolog.New(log).Level(zerolog.InfoLevel))
	w.now = func() time.Time { return now }
	refused := fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
	w.answered()
	w.warn("main", "failed", ofUsers(refused), nil)
	w.warn("main", "failed", &imclient.Error{Provider: "openim", API: "check", Err: refused}, nil)
	w.warn("", "housekeeping failed", errors.Join(refused, refused), nil)
	now = now.Add(90 * time.Second)
	w.warn("main", "could not begin with a range", &pgconn.PgError{Code: "57P03"}, nil)
	w.warn("chat", "failed", ofUsers(refused), nil)
	w.answered()
	w.answered()
	w.warn("", "housekeeping failed", refused, nil)
	want := `{"level":"warn","app":"main","error":"dial: dial: connection refused","message":"failed"}
{"level":"warn","app":"main","error":"openim check: dial: dial: connection refused","message":"failed"}
{"level":"warn","error":"dial: dial: connection refused\ndial: dial: connection refused","message":"no connection to the database; work waits until it answers"}
{"level":"info","dur_ms":90000,"message":"the database answers again"}
{"level":"warn","error":"dial: dial: connection refused","message":"no connection to the database; work waits until it answers"}
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// TestLostDatabase_lock: a database that answers, and in which a statement waits for a
// lock, is not lost.
func TestLostDatabase_lock(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{})
	s := w.spec()
	s.RescueAfter = 3 * time.Second // a third of it for a round of the housekeeping
	e := w.client(s)
	lock, err := w.db.Begin(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.Background()) }()
	if _, err := lock.Exec(w.ctx, `LOCK TABLE syncer.sync_run IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	err = e.keeper.housekeeping(w.ctx)
	if err == nil {
		t.Fatal("the housekeeping did not wait for the lock")
	}
	e.keeper.warn(err)
	if len(w.log.lines("no connection to the database")) > 0 || len(w.log.lines("housekeeping failed", `"level":"warn"`)) != 1 {
		t.Errorf("a lock is logged as\n%s", w.log.tail())
	}
}

func TestReasonOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"code":        {fmt.Errorf("page 7: %w", &imclient.Error{API: "querystate", Code: "70500", HTTPStatus: 200, Text: "of u7"}), "querystate 70500 200"},
		"status":      {&imclient.Error{API: "querystate", HTTPStatus: 502}, "querystate  502"},
		"no answer":   {&imclient.Error{API: "querystate", Text: "x", Err: errors.New("read tcp 10.0.0.1:4711: reset")}, "querystate read tcp #.#.#.#:#: reset"},
		"database":    {fmt.Errorf("save the page up to key u7: %w", &pgconn.PgError{Code: "53100", Message: "disk is full"}), "53100"},
		"joined":      {errors.Join(fmt.Errorf("of u7: %w", fs.ErrPermission), errors.New("other")), "permission denied"},
		"first line":  {errors.New("panic: 7 in a row\ngoroutine 12 [running]"), "panic: # in a row"},
		"joined none": {errors.Join(errors.New("u")), "u"},
	} {
		if diff := cmp.Diff(c.want, reasonOf(c.err)); diff != "" {
			t.Errorf("%s: reason (-want +got):\n%s", name, diff)
		}
	}
}

// TestLog_outage: each range that goes through has one line at debug, each run one
// at info, and an API that is down for all ranges of a run fills nothing: its outage
// has a line at either end.
func TestLog_outage(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 2000})
	s := w.spec()
	s.Range, s.Page, s.Workers, s.FirstRetry, s.Hold = 200, 200, 4, time.Millisecond, 100*time.Millisecond
	e := w.engine(s)
	frozen := time.Now()
	e.warnings.mu.Lock()
	e.warnings.now = func() time.Time { return frozen }
	e.warnings.mu.Unlock()
	fault := w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 503})
	run := w.start(e, imclient.ProviderOpenIM, imclient.KindPresence)
	const attempts = `SELECT coalesce(sum(cardinality(errors)), 0)::bigint FROM syncer.river_job`
	const waiting = `SELECT count(*) FROM syncer.sync_range WHERE error IS NOT NULL`
	w.eventually("three ranges have been given back", func() bool { return w.count(attempts) > 0 && w.count(waiting) >= 3 })
	w.sim.ClearFault(fault)
	run = w.wait(e, run)
	w.ended(run, repo.RunSucceeded)
	w.stop(e, grace)

	type event struct {
		Level, App, Job, Message, Class, Status string
		RunID                                   int64 `json:"run_id"`
		Range                                   int
		Users, Changed, Failed, Calls, Retries  int64
		LeftOut                                 int64 `json:"left_out"`
	}
	var sum repo.Counters
	var done, closed, failed, left, began, ended int64
	for _, line := range w.log.lines() {
		if strings.Contains(line, `"message":"call"`) {
			continue // the client's
		}
		var got event
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if got.Message == "the API gives no answer; calls are held back" && got.Level == "warn" && got.App == "openim" {
			began++
			continue
		}
		if got.Message == "the API answers again" && got.Level == "info" && got.App == "openim" {
			ended++
			continue
		}
		if got.App != "openim" || got.Job != BackfillJob || got.RunID != run.ID {
			t.Errorf("a line that does not say what it is of: %s", line)
		}
		switch got.Message {
		case "range done":
			done++
			sum.Add(repo.Counters{Users: got.Users, Changed: got.Changed, Failed: got.Failed})
		case "run closed":
			closed++
		case "failed; it will be retried":
			failed, left = failed+1, left+got.LeftOut
		case "page written", "no answer; the range waits":
		default:
			t.Errorf("what is this? %s", line)
		}
		if wantLevel := map[string]string{"run closed": "info", "failed; it will be retried": "warn"}[got.Message]; wantLevel != "" && got.Level != wantLevel {
			t.Errorf("level %s, want %s: %s", got.Level, wantLevel, line)
		}
	}
	if diff := cmp.Diff(repo.Counters{Users: 2000, Changed: 2000}, sum); diff != "" || done != 11 || closed != 1 {
		t.Errorf("%d ranges done, %d runs closed, want 11 (the last one empty) and 1; of the ranges (-want +got):\n%s", done, closed, diff)
	}
	// Only ranges that were begun before the outage have failed by it.
	if all := w.count(attempts); failed < 1 || failed > 2 || failed+left != all || all > 4 {
		t.Errorf("%d lines tell of failures, and that they left out %d; want 1 or 2 lines, of %d failures", failed, left, all)
	}
	if began != 1 || ended != 1 {
		t.Errorf("%d lines tell of the beginning of the outage, %d of its end", began, ended)
	}
}

// TestLog_suspect: when all pages of a run are suspect, the log says so once and
// how often it did not.
func TestLog_suspect(t *testing.T) {
	t.Parallel()
	const users, page = 400, 20
	w := setup(t, worldOptions{users: users})
	w.set(1, users, onWeb)
	s := w.suspectSpec(openIMApp)
	s.Page, s.Range, s.CollapseMin = page, users, page
	e := w.engine(s)
	w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	frozen := time.Now()
	e.warnings.mu.Lock()
	e.warnings.now = func() time.Time { return frozen }
	e.warnings.mu.Unlock()
	w.set(1, users)
	w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	w.stop(e, grace)
	type told struct{ Lines, Pages int }
	got := make(map[string]told)
	for _, line := range w.log.lines(`"verdict":`) {
		var event struct {
			Verdict string
			LeftOut int `json:"left_out"`
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		of := got[event.Verdict]
		got[event.Verdict] = told{of.Lines + 1, of.Pages + 1 + event.LeftOut}
	}
	want := map[string]told{"suspect": {4, 2 * users / page}, "confirmed": {2, users / page}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the log tells of suspect pages (-want +got):\n%s", diff)
	}
}
