package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestRoles: a worker, who owns nothing and may only read the users table, runs
// the daemon and backfills with all they do; a reader makes the reports; and
// neither may do more.
func TestRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 1500, change: 0.1, config: fmt.Sprintf(ticking, "1s", false) + "[history]\npartition = \"day\"\nretention = \"30d\"\n"})
	w.run(exitDone, "migrate", "up")
	w.exec(`SELECT syncer.make_history_partitions('day', now() - interval '40 days', now() - interval '38 days')`)
	worker, reader := w.newRole(), w.newRole()
	as := func(role string) string {
		return "SYNCER_DATABASE_URL=" + w.withParameter("role", role)
	}
	owner := "SYNCER_DATABASE_URL=" + w.dbURL
	w.exec(`GRANT SELECT ON public.users TO ` + pgx.Identifier{worker}.Sanitize())

	_, stderr := w.run(exitFailed, as(worker), "backfill")
	wantText(t, stderr, "permission denied for schema syncer", "grant-worker")
	// A reader's rights do not suffice, and the command to paste is in the message.
	w.run(exitDone, owner, "grant-reader", worker)
	_, stderr = w.run(exitFailed, as(worker), "backfill")
	wantText(t, stderr, "permission denied for", "\tsyncer grant-worker "+worker+"\n")
	// Nor may a worker make a schema; what the message has to paste lets it.
	other := w.withParameter("role", worker)
	_, stderr = w.run(exitFailed, "SYNCER_DATABASE_URL="+other, "SYNCER_DATABASE_SCHEMA=another", "migrate", "up")
	wantText(t, stderr, "GRANT CREATE ON DATABASE", `CREATE SCHEMA "another" AUTHORIZATION `+pgx.Identifier{worker}.Sanitize()+";")
	for range 2 { // again changes nothing
		w.run(exitDone, owner, "grant-worker", worker)
	}
	w.run(exitDone, owner, "grant-reader", reader)
	if _, stderr := w.run(exitFailed, as(worker), "grant-worker", reader); !strings.Contains(stderr, "only the owner of schema syncer may grant this") {
		t.Errorf("granting as a worker says: %s", stderr)
	}

	w.run(exitDone, as(worker), "config", "check", "--connect")
	w.run(exitDone, as(worker), "backfill", "--app", "chat")
	w.rounds.SetRound(1)
	w.exec(`DELETE FROM public.users WHERE id > 1400`)
	w.run(exitDone, as(worker), "backfill", "--app", "chat")
	w.wantSQL("100", `SELECT count(*) FROM syncer.presence_history WHERE state = 'removed'`)
	p := w.daemon(as(worker))
	w.waitSQL("true", `SELECT count(*) > 1 FROM syncer.sync_run WHERE trigger = 'cron' AND status = 'succeeded'`)
	p.stop()
	for _, wrong := range []string{"maintenance failed", "permission denied", "must be owner", "42501"} {
		if strings.Contains(p.stderr.String(), wrong) {
			t.Errorf("the daemon says %q:\n%s", wrong, p.stderr.String())
		}
	}
	// What the worker maintained is there, and not its own.
	w.wantSQL("true", `SELECT count(*) > 10 AND bool_and(lower_end > now() - interval '32 days') FROM syncer.history_partitions('syncer.presence_history')`)
	w.wantSQL("0", `SELECT count(*) FROM pg_class WHERE relowner = $1::text::regrole`, pgx.Identifier{worker}.Sanitize())
	w.wantSQL("0", `SELECT count(*) FROM syncer.presence_history_default`)
	for _, name := range reportNames {
		w.run(exitDone, as(reader), "report", name)
	}

	for role, denied := range map[string][]string{
		worker: {
			`UPDATE public.users SET uid = ''`, `DELETE FROM public.users`, `INSERT INTO public.users VALUES (0, '')`, `TRUNCATE public.users`,
			`CREATE TABLE syncer.mine (n int)`, `ALTER TABLE syncer.app ADD COLUMN mine int`, `DROP TABLE syncer.presence_history`, `DROP VIEW syncer.presence_current`,
			`TRUNCATE syncer.presence_history`, `DELETE FROM syncer.syncer_migration`, `UPDATE syncer.river_migration SET version = 1`, `DROP SCHEMA syncer CASCADE`,
			`CREATE OR REPLACE FUNCTION syncer.as_of() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'`, `DELETE FROM syncer.presence_history_default`,
		},
		reader: {
			`SELECT * FROM public.users`, `UPDATE syncer.app SET name = ''`, `DELETE FROM syncer.presence_history`, `SELECT * FROM syncer.river_job`, `CREATE TABLE syncer.mine (n int)`,
			`SELECT syncer.make_history_partitions('day', now(), now())`, `SELECT syncer.drop_history_partitions(now())`,
		},
	} {
		conn, err := pgx.Connect(w.ctx, w.withParameter("role", role))
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range denied {
			if _, err := conn.Exec(w.ctx, sql); err == nil || !strings.Contains(err.Error(), "42501") {
				t.Errorf("%s as %s: %v, want it refused for want of a right", sql, role, err)
			}
		}
		if err := conn.Close(w.ctx); err != nil {
			t.Error(err)
		}
	}
}
