package jobs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"syncer/imclient"
)

// TestAnnounce: a job that is due is announced in the words in which the queue
// announces a new one, once for each queue; not so a job whose time has not come,
// that somebody works on, or of a queue of others.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{})
	e, err := newTestEngine(w.ctx, w.spec(), w.log.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	due := queueName(e.app(imclient.ProviderTencent).ID, imclient.KindPresence)
	later := queueName(e.app(imclient.ProviderTencent).ID, imclient.KindAccounts)
	worked := queueName(e.app(imclient.ProviderOpenIM).ID, imclient.KindPresence)
	listener, err := pgx.Connect(w.ctx, w.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close(w.ctx) })
	if _, err := listener.Exec(w.ctx, `LISTEN "syncer.river_insert"`); err != nil {
		t.Fatal(err)
	}

	if _, err := e.queue.Insert(w.ctx, rangeArgs{}, &river.InsertOpts{Queue: due}); err != nil {
		t.Fatal(err)
	}
	inserted := w.announced(listener)
	if len(inserted) != 1 {
		t.Fatalf("the queue announced %q", inserted)
	}
	const addSQL = `
INSERT INTO syncer.river_job (queue, kind, args, max_attempts, scheduled_at, state, attempted_at)
VALUES ($1, 'syncer_range', '{}', 6, now() + $2::interval, $3, now())`
	w.exec(addSQL, due, "0", "available")
	w.exec(addSQL, later, "1 hour", "available")
	w.exec(addSQL, worked, "0", "running")
	w.exec(addSQL, "app99_presence", "0", "available")
	if err := e.announce(w.ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(inserted, w.announced(listener)); diff != "" {
		t.Errorf("announced (-by the queue +by the engine):\n%s", diff)
	}
}

// announced gives the announcements that were made so far.
func (w *world) announced(listener *pgx.Conn) []string {
	w.t.Helper()
	w.exec(`SELECT pg_notify('syncer.river_insert', 'that is all')`)
	var all []string
	for {
		n, err := listener.WaitForNotification(w.ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		if n.Payload == "that is all" {
			return all
		}
		all = append(all, n.Payload)
	}
}
