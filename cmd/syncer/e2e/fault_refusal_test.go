package e2e

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// refuseSQL makes the tables on which a sweep depends fail as public.refusal says:
// with a SQLSTATE, so many times; 0: always.
const refuseSQL = `
CREATE TABLE public.refusal (code text NOT NULL, message text NOT NULL, times bigint NOT NULL);
CREATE SEQUENCE public.refused;
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    r public.refusal;
BEGIN
    SELECT * INTO r FROM public.refusal;
    IF FOUND AND (r.times = 0 OR nextval('public.refused') <= r.times) THEN
        RAISE EXCEPTION '%', r.message USING ERRCODE = r.code;
    END IF;
    RETURN NULL;
END $$;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sync_run', 'sync_range', 'presence_snapshot', 'presence_history', 'user_failure', 'api_quota', 'river_job'] LOOP
        EXECUTE format('CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON syncer.%I FOR EACH STATEMENT EXECUTE FUNCTION public.refuse()', name);
    END LOOP;
    EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database());
    EXECUTE format('ALTER DATABASE %I SET statement_timeout = 8000', current_database());
    EXECUTE format('ALTER DATABASE %I SET lock_timeout = 500', current_database());
END $$`

// refuse lets writes fail from now on; accept ends that.
func (f *fleet) refuse(code, message string, times int) {
	f.t.Helper()
	f.exec(`INSERT INTO public.refusal VALUES ($1, $2, $3)`, code, message, times)
}

func (f *fleet) accept() {
	f.t.Helper()
	f.exec(`DELETE FROM public.refusal`)
	f.exec(`ALTER SEQUENCE public.refused RESTART`)
}

// TestPostgresRefuses: a database whose settings are strict loses, amid sweeps,
// its disk space, sorts transactions out against each other, has a table locked by
// somebody and is made read-only. The daemon says so, and goes on by itself.
func TestPostgresRefuses(t *testing.T) {
	t.Parallel()
	f := oneDaemon(t, worldOptions{})
	if _, err := f.db.Exec(f.ctx, refuseSQL, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	p := f.atWork()
	spoken, full := p.spoken(), time.Now()
	f.refuse("53100", `could not extend file "base/16384/16402": No space left on device`, 0)
	f.unready(p, "No space left on device (SQLSTATE 53100)")
	f.eventually("the disk has been full for 4 s", func() bool { return time.Since(full) > 4*time.Second })
	f.accept()
	f.ready(p)
	f.swept()
	p.quiet(spoken, 20)

	for code, message := range map[string]string{"40P01": "deadlock detected", "40001": "could not serialize access due to concurrent update"} {
		f.change()
		f.refuse(code, message, 4)
		f.swept()
		f.accept()
	}

	f.change()
	f.amid()
	lock, err := f.db.Begin(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(f.ctx, `SET LOCAL lock_timeout = 0`); err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(f.ctx, `LOCK TABLE syncer.presence_snapshot`); err != nil {
		t.Fatal(err)
	}
	// Neither lock_timeout nor statement_timeout of the database ends the wait.
	f.waitSQL("true", `SELECT count(*) > 0 FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE NOT granted AND relation = 'syncer.presence_snapshot'::regclass AND query_start < clock_timestamp() - interval '1 s'`)
	if err := lock.Rollback(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.swept()

	f.change()
	f.amid()
	f.readOnly(true)
	spoken = p.spoken()
	f.unready(p, "the database takes no writes: default_transaction_read_only is on")
	_, stderr := f.world.run(exitFailed, "run")
	wantText(t, stderr, `"message":"the database takes no writes: default_transaction_read_only is on`)
	f.readOnly(false)
	f.ready(p)
	f.swept()
	p.quiet(spoken, 20)
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed'`)
	f.survived()
}

// readOnly makes the database read-only, or writable again. Sessions that there
// are keep what they began with, so those of a database that is made read-only are
// ended.
func (f *fleet) readOnly(on bool) {
	f.t.Helper()
	tx, err := f.db.BeginTx(f.ctx, pgx.TxOptions{AccessMode: pgx.ReadWrite})
	if err != nil {
		f.t.Fatal(err)
	}
	setting := `SET default_transaction_read_only = on`
	if !on {
		setting = `RESET default_transaction_read_only`
	}
	name := pgx.Identifier{f.db.Config().ConnConfig.Database}.Sanitize()
	if _, err := tx.Exec(f.ctx, `ALTER DATABASE `+name+` `+setting); err != nil {
		f.t.Fatal(err)
	}
	if err := tx.Commit(f.ctx); err != nil {
		f.t.Fatal(err)
	}
	if on {
		f.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'syncer %'`)
	}
	f.db.Reset()
}
