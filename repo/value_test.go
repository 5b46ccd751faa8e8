package repo_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/repo"
)

const (
	snapshotsSQL = `SELECT user_id, state::text, platforms::text, asked_at, changed_at, run_id FROM presence_snapshot ORDER BY user_id`
	historySQL   = `SELECT user_id, prev_state::text, state::text, platforms::text, not_before, observed_at, run_id FROM presence_history ORDER BY user_id, observed_at`
	failuresSQL  = `SELECT kind, user_id, code, message, first_at, last_at, times FROM user_failure ORDER BY kind, user_id`
	rangesSQL    = `SELECT range_no, status, cursor_key, users, changed, failed, calls, retries, counts::text, beat_at, error FROM sync_range ORDER BY run_id, range_no`
)

// wantLines compares the rows of a statement.
func wantLines(t testing.TB, conn *pgx.Conn, what, statement string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, lines(t, conn, statement), cmpEmpty); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// cmpEmpty takes no lines and nil for the same.
var cmpEmpty = cmp.FilterValues(func(a, b []string) bool { return len(a) == 0 && len(b) == 0 }, cmp.Comparer(func(a, b []string) bool { return true }))

// at is the time so many seconds after noon.
func at(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }

func presence(state imclient.State, platforms ...imclient.Platform) imclient.Presence {
	p := imclient.Presence{State: state}
	for _, platform := range platforms {
		p.Platforms.Add(platform, imclient.ModeOnline)
	}
	return p
}

var (
	offline   = presence(imclient.StateOffline)
	onlineIOS = presence(imclient.StateOnline, imclient.PlatformIOS)
	onlineWeb = presence(imclient.StateOnline, imclient.PlatformWeb)
)

// seen is a change of a user seen for the first time, in an answer whose
// question was sent a second before.
func seen[V comparable](userID string, v V, observedAt time.Time) repo.Change[V] {
	return repo.Change[V]{UserID: userID, Value: v, AskedAt: observedAt.Add(-time.Second), ObservedAt: observedAt}
}

// changed is a change of a user with a snapshot.
func changed[V comparable](userID string, prev repo.Snapshot[V], v V, notBefore, observedAt time.Time) repo.Change[V] {
	c := seen(userID, v, observedAt)
	c.Prev, c.NotBefore = &prev, notBefore
	return c
}

// page is a page of changes alone.
func page[V comparable](lastKey string, changes ...repo.Change[V]) repo.Page[V] {
	return repo.Page[V]{LastKey: lastKey, Changes: changes, Counts: repo.RangeCounts{}}
}

// failures are of users without a snapshot.
func failures(errs ...imclient.UserError) []repo.Failure {
	all := make([]repo.Failure, len(errs))
	for i, err := range errs {
		all[i].UserError = err
	}
	return all
}

// population is a set of users.
func population(ids ...string) (p repo.Population) {
	for _, id := range ids {
		p.Add(id, 1)
	}
	return p
}

// save saves a page and checks how many users it changed.
func save[V comparable](t testing.TB, values *repo.Values[V], r *repo.Range, p repo.Page[V], want int64) {
	t.Helper()
	got, err := values.SavePage(t.Context(), r, p)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("SavePage changed %d users, want %d", got, want)
	}
}

// load returns the snapshot of one user, which must exist.
func load[V comparable](t testing.TB, values *repo.Values[V], appID int16, userID string) repo.Snapshot[V] {
	t.Helper()
	known, err := values.Load(t.Context(), appID, []string{userID})
	if err != nil {
		t.Fatal(err)
	}
	snapshot := known.Snapshot(0)
	if !snapshot.Exists() {
		t.Fatalf("user %s has no snapshot", userID)
	}
	return *snapshot
}

func TestSavePresence(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Presence()
	r := b.startedRange(t, b.backfill(imclient.KindPresence))

	save(t, values, r, page("1", seen("alice", offline, at(1)), seen("bob", onlineIOS, at(1)), seen("北京", offline, at(1))), 3)
	wantLines(t, b.conn, "snapshots of users first seen", snapshotsSQL,
		"alice offline {} 12:00:00 12:00:01 1",
		`bob online {"ios": "online"} 12:00:00 12:00:01 1`,
		"北京 offline {} 12:00:00 12:00:01 1")
	wantLines(t, b.conn, "history of users first seen", historySQL,
		"alice - offline {} - 12:00:01 1",
		`bob - online {"ios": "online"} - 12:00:01 1`,
		"北京 - offline {} - 12:00:01 1")

	// One changes state, one only platforms. What is not changed is not written.
	before := lines(t, b.conn, `SELECT xmin::text, ctid::text FROM presence_snapshot WHERE user_id = '北京'`)
	save(t, values, r, page("2",
		changed("alice", load(t, values, b.app.ID, "alice"), onlineWeb, at(0), at(5)),
		changed("bob", load(t, values, b.app.ID, "bob"), onlineWeb, at(2), at(5))), 2)
	wantLines(t, b.conn, "snapshots after changes", snapshotsSQL,
		`alice online {"web": "online"} 12:00:04 12:00:05 1`,
		`bob online {"web": "online"} 12:00:04 12:00:05 1`,
		"北京 offline {} 12:00:00 12:00:01 1")
	wantLines(t, b.conn, "history after changes", historySQL,
		"alice - offline {} - 12:00:01 1",
		`alice offline online {"web": "online"} 12:00:00 12:00:05 1`,
		`bob - online {"ios": "online"} - 12:00:01 1`,
		`bob online online {"web": "online"} 12:00:02 12:00:05 1`,
		"北京 - offline {} - 12:00:01 1")
	if diff := cmp.Diff(before, lines(t, b.conn, `SELECT xmin::text, ctid::text FROM presence_snapshot WHERE user_id = '北京'`)); diff != "" {
		t.Errorf("the row of an unchanged user was written (-before +after):\n%s", diff)
	}
}

func TestSaveAccounts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Accounts()
	r := b.startedRange(t, b.backfill(imclient.KindAccounts))
	save(t, values, r, page("1", seen("alice", imclient.StatusNotImported, at(1)), seen("bob", imclient.StatusImported, at(1))), 2)
	alice := load(t, values, b.app.ID, "alice")
	want := repo.Snapshot[imclient.AccountStatus]{Value: imclient.StatusNotImported, ChangedAt: at(1), AskedAt: at(0)}
	if diff := cmp.Diff(want, alice); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
	p := page("1", changed("alice", alice, imclient.StatusImported, at(0), at(7)))
	save(t, values, r, p, 1)
	save(t, values, r, p, 0)
	wantLines(t, b.conn, "snapshots", `SELECT user_id, status::text, asked_at, changed_at, run_id FROM account_snapshot ORDER BY user_id`,
		"alice imported 12:00:06 12:00:07 1", "bob imported 12:00:00 12:00:01 1")
	wantLines(t, b.conn, "history", `SELECT user_id, prev_status::text, status::text, not_before, observed_at, run_id FROM account_history ORDER BY user_id, observed_at`,
		"alice - not_imported - 12:00:01 1", "alice not_imported imported 12:00:00 12:00:07 1", "bob - imported - 12:00:01 1")
}

// writesSQL lists every row version of the values' tables.
const writesSQL = `
SELECT 'snapshot', user_id, xmin::text, ctid::text FROM presence_snapshot
UNION ALL SELECT 'history', user_id, xmin::text, ctid::text FROM presence_history
ORDER BY 1, 2, 4`

func TestReplayedPageWritesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Presence()
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	first := page("1", seen("alice", offline, at(1)), seen("bob", offline, at(1)))
	save(t, values, r, first, 2)
	second := page("1", changed("alice", load(t, values, b.app.ID, "alice"), onlineIOS, at(1), at(3)))
	save(t, values, r, second, 1)
	before := lines(t, b.conn, writesSQL)
	save(t, values, r, first, 0)
	save(t, values, r, second, 0)
	save(t, values, r, page[imclient.Presence]("1"), 0)
	if diff := cmp.Diff(before, lines(t, b.conn, writesSQL)); diff != "" {
		t.Errorf("row versions (-before +after the replay):\n%s", diff)
	}
}

func TestStaleChangeIsLeftOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Presence()
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	save(t, values, r, page("1", seen("alice", offline, at(1)), seen("bob", offline, at(10))), 2)
	stale, bob := load(t, values, b.app.ID, "alice"), load(t, values, b.app.ID, "bob")
	save(t, values, r, page("2", changed("alice", stale, onlineIOS, at(1), at(3))), 1)
	// Alice changed since; bob's answer is older than what is known of him.
	save(t, values, r, page("3", changed("alice", stale, onlineWeb, at(1), at(4)), changed("bob", bob, onlineWeb, at(2), at(10))), 0)
	// Somebody who was first seen twice: the same id on two pages.
	save(t, values, r, page("4", seen("bob", onlineIOS, at(20)), seen("carol", offline, at(20))), 1)
	wantLines(t, b.conn, "snapshots", snapshotsSQL,
		`alice online {"ios": "online"} 12:00:02 12:00:03 1`, "bob offline {} 12:00:09 12:00:10 1", "carol offline {} 12:00:19 12:00:20 1")
	wantLines(t, b.conn, "history", historySQL,
		"alice - offline {} - 12:00:01 1", `alice offline online {"ios": "online"} 12:00:01 12:00:03 1`,
		"bob - offline {} - 12:00:10 1", "carol - offline {} - 12:00:20 1")
	wantLines(t, b.conn, "range", `SELECT cursor_key, changed FROM sync_range`, "4 4")
}

// The database's clock may have been set back since the previous run. The
// bracket is then as narrow as it can be; a page must not be refused for it.
func TestBracketsAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Presence()
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	first := seen("alice", offline, at(1))
	first.AskedAt = at(2)
	save(t, values, r, page("1", first), 1)
	second := changed("alice", load(t, values, b.app.ID, "alice"), onlineIOS, at(60), at(5))
	second.AskedAt = at(7)
	save(t, values, r, page("2", second), 1)
	wantLines(t, b.conn, "snapshots", snapshotsSQL, `alice online {"ios": "online"} 12:00:05 12:00:05 1`)
	wantLines(t, b.conn, "history", historySQL,
		"alice - offline {} - 12:00:01 1", `alice offline online {"ios": "online"} 12:00:05 12:00:05 1`)

	accounts := b.store.Accounts()
	ra := b.startedRange(t, b.backfill(imclient.KindAccounts))
	imported := seen("alice", imclient.StatusImported, at(1))
	imported.AskedAt = at(2)
	save(t, accounts, ra, page("1", imported), 1)
	gone := changed("alice", load(t, accounts, b.app.ID, "alice"), imclient.StatusNotImported, at(60), at(5))
	gone.AskedAt = at(7)
	save(t, accounts, ra, page("2", gone), 1)
	wantLines(t, b.conn, "account history", `SELECT user_id, status::text, not_before, observed_at FROM account_history ORDER BY observed_at`,
		"alice imported - 12:00:01", "alice not_imported 12:00:05 12:00:05")
}

func TestAppsAndKindsApart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	other, err := b.store.EnsureApp(t.Context(), "other", imclient.ProviderOpenIM, "other")
	if err != nil {
		t.Fatal(err)
	}
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	save(t, b.store.Presence(), r, page("1", seen("alice", offline, at(1))), 1)
	n := b.backfill(imclient.KindPresence)
	n.AppID = other.ID
	r2 := b.startedRange(t, n)
	p := page("1", seen("alice", onlineIOS, at(1)))
	p.Failures = failures(imclient.UserError{UserID: "bob", Code: "70107", Text: "unknown"})
	save(t, b.store.Presence(), r2, p, 1)
	for _, test := range []struct {
		appID int16
		want  repo.Known[imclient.Presence]
	}{
		{b.app.ID, repo.Known[imclient.Presence]{Snapshots: []repo.Snapshot[imclient.Presence]{{Value: offline, ChangedAt: at(1), AskedAt: at(0)}, {}}}},
		{other.ID, repo.Known[imclient.Presence]{
			Snapshots: []repo.Snapshot[imclient.Presence]{{Value: onlineIOS, ChangedAt: at(1), AskedAt: at(0)}, {}},
			Failing:   map[string]repo.KnownFailure{"bob": {Code: "70107", LastAt: noon}}}},
	} {
		got, err := b.store.Presence().Load(t.Context(), test.appID, []string{"alice", "bob"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("Load of app %d (-want +got):\n%s", test.appID, diff)
		}
	}
	accounts, err := b.store.Accounts().Load(t.Context(), other.ID, []string{"alice", "bob"})
	if err != nil || accounts.Snapshot(0).Exists() || accounts.Snapshot(1).Exists() || len(accounts.Failing) != 0 {
		t.Errorf("accounts know %v, %v; want nothing", accounts, err)
	}
}

func TestFailuresAndRecovery(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Presence()
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	p := page[imclient.Presence]("1")
	p.Failures = failures(imclient.UserError{UserID: "bob", Code: "70107", Text: "no such user"}, imclient.UserError{UserID: "", Code: "null_id", Text: "2 rows"}, imclient.UserError{UserID: "alice", Code: "missing"})
	p.Failed = 4
	save(t, values, r, p, 0)
	b.clock.pass(time.Minute)
	p = page[imclient.Presence]("2")
	p.Failures = failures(imclient.UserError{UserID: "bob", Code: "70500", Text: "busy"})
	p.Failed, p.Recovered = 1, []repo.Recovery{{UserID: "alice", AskedAt: at(0)}, {UserID: "never failed", AskedAt: at(0)}}
	save(t, values, r, p, 0)
	wantLines(t, b.conn, "failures", failuresSQL,
		"presence  null_id 2 rows 12:00:00 12:00:00 1",
		"presence bob 70500 busy 12:01:00 12:01:00 1")
	groups, err := b.store.FailureGroups(t.Context(), b.app.ID, imclient.KindPresence)
	if err != nil {
		t.Fatal(err)
	}
	want := []repo.FailureGroup{{Code: "70500", Message: "busy", Users: 1}, {Code: "null_id", Message: "2 rows", Users: 1}}
	if diff := cmp.Diff(want, groups); diff != "" {
		t.Errorf("FailureGroups (-want +got):\n%s", diff)
	}
}

// An id beyond what an index can hold comes from a wrong expression, and is
// refused before it is sent; recording that must not fail.
func TestOverlongIDsCanFail(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	random := rand.New(rand.NewPCG(1, 2))
	var long strings.Builder
	for long.Len() < 20_000 {
		fmt.Fprintf(&long, "é%x", random.Uint64())
	}
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	p := page[imclient.Presence]("1")
	for i := range 3 { // ids that differ only at their end stay apart
		p.Failures = append(p.Failures, repo.Failure{UserError: imclient.UserError{UserID: fmt.Sprintf("%s%d", long.String(), i), Code: imclient.CodeInvalidID, Text: "too long"}})
	}
	save(t, b.store.Presence(), r, p, 0)
	got := lines(t, b.conn, `SELECT octet_length(user_id) < 1200, starts_with($1, left(user_id, 400)), times FROM user_failure`, long.String())
	if diff := cmp.Diff([]string{"true true 1", "true true 1", "true true 1"}, got); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
}

func TestPageMovesTheRange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	p := page("k1", seen("alice", offline, at(1)))
	p.Counters = repo.Counters{Users: 5, Changed: 99, Failed: 1, Calls: 3, Retries: 2}
	p.Counts = repo.RangeCounts{"offline": {"all": 4}}
	b.clock.pass(2 * time.Second)
	save(t, b.store.Presence(), r, p, 1)
	wantLines(t, b.conn, "range", rangesSQL, `1 running k1 5 1 1 3 2 {"offline": {"all": 4}} 12:00:02 -`)
	p = page("k2", seen("bob", offline, at(2)), seen("carol", onlineIOS, at(2)))
	p.Counters = repo.Counters{Users: 7, Calls: 1}
	p.Counts = repo.RangeCounts{"offline": {"all": 5}, "online": {"all": 1, "ios": 1}}
	save(t, b.store.Presence(), r, p, 2)
	wantLines(t, b.conn, "range", rangesSQL, `1 running k2 12 3 1 4 2 {"online": {"all": 1, "ios": 1}, "offline": {"all": 5}} 12:00:02 -`)
	run, err := b.store.FindRun(t.Context(), r.Run.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(repo.Counters{Users: 12, Changed: 3, Failed: 1, Calls: 4, Retries: 2}, run.Counters); diff != "" {
		t.Errorf("counters of the running run (-want +got):\n%s", diff)
	}
}

// A page whose write fails half-way leaves nothing of itself.
func TestFailedPageWritesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	p := page("k1", seen("alice", offline, at(1)))
	p.Users = 1
	p.Failures = failures(imclient.UserError{UserID: "bob", Code: "1", Text: "not UTF-8: \xff"})
	if _, err := b.store.Presence().SavePage(t.Context(), r, p); err == nil {
		t.Fatal("a page with a text that cannot be stored was saved")
	} else if want := "save the page up to key k1 of range 1 of run 1: "; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %q does not begin with %q", err, want)
	}
	wantLines(t, b.conn, "what is left", `SELECT (SELECT count(*) FROM presence_snapshot), (SELECT count(*) FROM presence_history), users, cursor_key FROM sync_range`, "0 0 0 -")
}
