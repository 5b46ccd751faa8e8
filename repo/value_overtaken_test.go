package repo_test

import (
	"errors"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

// Of two questions about one user that overlap, only the backend knows which it
// answered first: what the snapshot has stands. A question sent at the very time at
// which the snapshot's answer arrived is the later one.
func TestOvertakenAnswerIsLeftOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	overtaken(t, b, b.store.Presence(), imclient.KindPresence, offline, onlineIOS,
		`SELECT user_id, asked_at, changed_at FROM presence_snapshot ORDER BY 1`,
		`SELECT user_id, state::text, observed_at FROM presence_history ORDER BY 1, 3`, "offline", "online")
	overtaken(t, b, b.store.Accounts(), imclient.KindAccounts, imclient.StatusNotImported, imclient.StatusImported,
		`SELECT user_id, asked_at, changed_at FROM account_snapshot ORDER BY 1`,
		`SELECT user_id, status::text, observed_at FROM account_history ORDER BY 1, 3`, "not_imported", "imported")
}

func overtaken[V comparable](t *testing.T, b *bench, values *repo.Values[V], kind imclient.Kind, first, second V, snapshots, history, one, two string) {
	t.Helper()
	r := b.startedRange(t, b.backfill(kind))
	answered := func(id string, asked int) repo.Change[V] {
		c := changed(id, load(t, values, b.app.ID, id), second, at(0), at(20))
		c.AskedAt = at(asked)
		return c
	}
	save(t, values, r, page("1", seen("alice", first, at(10)), seen("bob", first, at(10)), seen("carol", first, at(10))), 3)
	p := page("2", answered("alice", 10), answered("bob", 9))
	p.Changes[1].AskedAt = at(10).Add(-time.Microsecond)
	save(t, values, r, p, 1)
	wantLines(t, b.conn, "snapshots", snapshots, "alice 12:00:10 12:00:20", "bob 12:00:09 12:00:10", "carol 12:00:09 12:00:10")
	wantLines(t, b.conn, "history", history, "alice "+one+" 12:00:10", "alice "+two+" 12:00:20", "bob "+one+" 12:00:10", "carol "+one+" 12:00:10")

	// A failure that is newer than the question stays. A user lapses only if the
	// rejection is newer than the snapshot and there is no answer since.
	b.clock.pass(time.Minute)
	p = page[V]("3")
	for _, id := range []string{"alice", "bob"} {
		p.Failures = append(p.Failures, repo.Failure{UserError: imclient.UserError{UserID: id, Code: "70107"}, KnownAt: at(9)})
	}
	save(t, values, r, p, 0)
	p = page[V]("4")
	p.Recovered = []repo.Recovery{{UserID: "alice", AskedAt: at(60)}, {UserID: "bob", AskedAt: at(59)}}
	lapse := func(id string, changed, asked int) repo.Lapse {
		return repo.Lapse{UserID: id, ChangedAt: at(changed), NotBefore: at(9), AskedAt: at(asked), ObservedAt: at(300)}
	}
	save(t, values, r, p, 0)
	wantLines(t, b.conn, "failures", `SELECT user_id FROM user_failure WHERE kind = '`+string(kind)+`'`, "bob")
	p = page[V]("5")
	p.Lapses = []repo.Lapse{lapse("alice", 20, 90), lapse("bob", 10, 9), lapse("carol", 10, 90)}
	save(t, values, r, p, 0)
	wantLines(t, b.conn, "snapshots after lapses refused", snapshots, "alice 12:00:10 12:00:20", "bob 12:00:09 12:00:10", "carol 12:00:09 12:00:10")
	p.Lapses = []repo.Lapse{lapse("bob", 10, 90)}
	p.LastKey = "6"
	save(t, values, r, p, 0)
	wantLines(t, b.conn, "snapshots after a lapse", snapshots, "alice 12:00:10 12:00:20", "carol 12:00:09 12:00:10")
	b.clock.pass(-time.Minute)
}

// A users table with several rows of one user: every user who left is found, although
// the rows of two users cancel each other out in an XOR of their hashes.
func TestLeaversAmongRepeatedIDs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Presence()
	first := b.startedRange(t, b.every(time.Minute))
	p := page("a", seen("alice", onlineIOS, at(0)), seen("bob", onlineIOS, at(0)))
	p.Users, p.Known = 4, population("alice", "alice", "bob", "bob")
	save(t, values, first, p, 2)
	b.finish(t, first, "")
	b.clock.pass(time.Minute)
	second := b.startedRange(t, b.every(time.Minute))
	p = page[imclient.Presence]("a")
	p.Users, p.Kept, p.Known = 4, population("bob", "bob", "bob", "bob"), population("bob", "bob", "bob", "bob")
	save(t, values, second, p, 0)
	if _, err := b.store.FinishRange(t.Context(), second, "", nothing); !errors.Is(err, repo.ErrUnreconciled) {
		t.Errorf("FinishRange of a run that did not meet alice: %v, want ErrUnreconciled", err)
	}
}
