package jobs

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// listen connects, and listens on a channel.
func (w *world) listen(channel string) *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.Connect(w.ctx, w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(w.ctx, `LISTEN `+pgx.Identifier{channel}.Sanitize()); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// TestAnnounce: a job that is due is announced in the words in which a new one is, once
// for each queue; not so a job whose time has not come, that is being worked on, or of
// another engine's queue.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{})
	e, err := newTestEngine(w.ctx, w.spec(), w.log.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	app := e.app(imclient.ProviderTencent)
	later := queueName(app.ID, imclient.KindAccounts)
	worked := queueName(e.app(imclient.ProviderOpenIM).ID, imclient.KindPresence)
	name, err := e.store.QueueChannel(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	channel := "syncer." + name
	listener := w.listen(channel)

	insert := func(tx pgx.Tx) error {
		_, err := e.queue.enqueue(w.ctx)(tx, repo.Run{AppID: app.ID, Kind: imclient.KindPresence}, 1)
		return err
	}
	if err := pgx.BeginFunc(w.ctx, w.db, insert); err != nil {
		t.Fatal(err)
	}
	inserted := w.announced(listener, channel)
	if len(inserted) != 1 {
		t.Fatalf("a new job was announced as %q", inserted)
	}
	const addSQL = `
INSERT INTO syncer.river_job (queue, kind, args, max_attempts, scheduled_at, state, attempted_at)
VALUES ($1, 'syncer_range', '{}', 6, now() + $2::interval, $3, now())`
	w.exec(addSQL, queueName(app.ID, imclient.KindPresence), "0", "available")
	w.exec(addSQL, later, "1 hour", "available")
	w.exec(addSQL, worked, "0", "running")
	w.exec(addSQL, "app99_presence", "0", "available")
	if err := e.queue.announce(w.ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(inserted, w.announced(listener, channel)); diff != "" {
		t.Errorf("announced (-a new job +one that is due):\n%s", diff)
	}
}

// announced gives the announcements that were made so far.
func (w *world) announced(listener *pgx.Conn, channel string) []string {
	w.t.Helper()
	w.exec(`SELECT pg_notify($1, 'that is all')`, channel)
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

// stranger connects as a new role that has no right but to connect.
func (w *world) stranger() *pgx.Conn {
	w.t.Helper()
	role := "syncer_test_" + strings.ToLower(rand.Text()[:10])
	w.exec(`CREATE ROLE ` + role)
	w.t.Cleanup(func() { w.exec(`DROP ROLE ` + role) })
	u, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	query := u.Query()
	query.Set("role", role)
	u.RawQuery = query.Encode()
	conn, err := pgx.Connect(w.ctx, u.String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// TestForeignNotifications: a role that may do nothing but connect sends the queue's own
// notifications, and others, amid a run: queues paused, jobs cancelled, leadership given
// up, payloads that make no sense. Nothing comes of it: no job is cancelled or taken over,
// nothing is logged, and the run, like one that begins only then, goes through.
func TestForeignNotifications(t *testing.T) {
	t.Parallel()
	for name, pollOnly := range map[string]bool{"listening": false, "poll_only": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 1500})
			s := w.spec()
			s.Range, s.Page, s.RescueAfter, s.PollOnly = 500, 500, 3*time.Second, pollOnly
			e := w.engine(s)
			witnesses := []*pgx.Conn{w.listen("syncer.river_control"), w.listen("syncer.river_leadership"), w.listen("syncer.river_insert")}
			fault := w.fault(imsim.Fault{Kind: imsim.FaultHang, Times: 2})
			run := w.start(e, tencentApp, imclient.KindAccounts)
			w.eventually("two ranges are being worked on", func() bool { return w.hits(fault) == 2 })
			var leader []string
			w.eventually("the queue has a leader", func() bool {
				leader = query(w, pgx.RowTo[string], `SELECT leader_id || ' ' || elected_at FROM syncer.river_leader`)
				return len(leader) == 1
			})

			stranger := w.stranger()
			for _, sql := range []string{
				`SELECT pg_notify('syncer.river_control', '{"action":"cancel","queue":"' || queue || '","job_id":' || id || '}')
				 FROM (SELECT 'app' || app || '_' || kind FROM generate_series(1, 3) AS app, unnest('{presence,accounts}'::text[]) AS kind) AS q (queue), generate_series(1, 100) AS id`,
				`SELECT pg_notify('syncer.river_control', '{"action":"pause","queue":"*"}')`,
				`SELECT pg_notify('syncer.river_leadership', '{"action":"request_resign"}')`,
				`SELECT pg_notify('syncer.river_leadership', '{"action":"resigned","leader_id":"x"}')`,
				`SELECT pg_notify('syncer.' || topic, payload)
				 FROM unnest('{river_control,river_leadership,river_insert}'::text[]) AS topic, unnest(ARRAY['{', '', '[[[', repeat('x', 7999)]) AS payload`,
			} {
				if _, err := stranger.Exec(w.ctx, sql); err != nil {
					t.Fatal(err)
				}
			}
			for _, witness := range witnesses { // it is all sent, and could have been heard
				if _, err := witness.WaitForNotification(w.ctx); err != nil {
					t.Fatal(err)
				}
			}
			w.sim.ClearFault(fault)
			w.ended(w.wait(e, run), repo.RunSucceeded)
			w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
			w.truthful(accountTables, e.app(tencentApp), userIDs(1500))
			w.truthful(presenceTables, e.app(openIMApp), userIDs(1500))
			if n := w.count(`SELECT count(*) FROM syncer.river_job WHERE state IN ('cancelled', 'discarded') OR attempt > 1`); n != 0 {
				t.Errorf("%d jobs were cancelled, or tried again", n)
			}
			if now := query(w, pgx.RowTo[string], `SELECT leader_id || ' ' || elected_at FROM syncer.river_leader`); !cmp.Equal(now, leader) {
				t.Errorf("the leader of the queue was %s and is %s", leader, now)
			}
			for _, part := range []string{`"message":"queue: `, "took over work"} {
				if lines := w.log.lines(part); len(lines) > 0 {
					t.Errorf("logged: %s", lines)
				}
			}
		})
	}
}
