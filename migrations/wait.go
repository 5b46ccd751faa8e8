package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"syncer/internal/pg"
)

// Statements of sweeps that come after a waiting migration wait behind it, and so as
// long as it does. So each of its statements waits only for lockTimeout, less long than
// deadlock_timeout; then the migration is undone and begun again after a pause, in which
// the sweeps catch up.
const (
	lockTimeout  = 800 * time.Millisecond
	firstPause   = 500 * time.Millisecond
	longestPause = 10 * time.Second
	lookEvery    = 100 * time.Millisecond // for the sessions that are waited for
)

// sessionSettings are those of all sessions of a Migrator, whatever role, database or
// server are set to.
var sessionSettings = map[string]string{
	"lock_timeout":                        fmt.Sprint(lockTimeout.Milliseconds()),
	"statement_timeout":                   "0",
	"idle_session_timeout":                "0",
	"idle_in_transaction_session_timeout": "0",
}

// unlimitedTransactionSQL turns transaction_timeout off, which servers before version 17
// do not know.
const unlimitedTransactionSQL = `
SELECT set_config(name, '0', false)
FROM pg_settings
WHERE name = 'transaction_timeout' AND setting <> '0'`

func overrideSession(c *pgxpool.Config) {
	for name, value := range sessionSettings {
		c.ConnConfig.RuntimeParams[name] = value
	}
	c.ConnConfig.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		return conn.Exec(ctx, unlimitedTransactionSQL).Close()
	}
}

// errMigrating says that another session holds the lock of migrations.
var errMigrating = errors.New("another session holds the lock of migrations: it is migrating, or keeps others from it")

// migrationLock lets one process at a time migrate a database. Another process that
// migrates is waited for by persist. It implements lock.SessionLocker.
type migrationLock struct{}

// SessionLock takes the lock, or returns errMigrating.
func (migrationLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	var locked bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", lock.DefaultLockID).Scan(&locked); err != nil {
		return fmt.Errorf("take the lock of migrations: %w", err)
	}
	if !locked {
		return errMigrating
	}
	return nil
}

// SessionUnlock gives the lock back.
func (migrationLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", lock.DefaultLockID); err != nil {
		return fmt.Errorf("give the lock of migrations back: %w", err)
	}
	return nil
}

// persist calls migrate until it has had all its locks, or for as long as Config.LockWait
// or ctx allow. It returns what was applied, also when it fails.
func (m *Migrator) persist(ctx context.Context, direction string, migrate func() ([]*goose.MigrationResult, error)) ([]Status, error) {
	var done []Status
	var holders []pg.Session
	var reported string
	begun := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		watch := m.watch(ctx)
		results, err := migrate()
		if seen := watch.end(); len(seen) > 0 {
			holders = seen
		}
		if partial, ok := errors.AsType[*goose.PartialError](err); ok {
			results = partial.Applied
		}
		done = append(done, applied(results)...)
		migrating := errors.Is(err, errMigrating)
		switch {
		case migrating:
			if holders, err = pg.HoldingAdvisory(ctx, m.pool, lock.DefaultLockID); err != nil {
				return done, migrationError(direction, err)
			}
			err = errMigrating
			pause = firstPause // the next one waits for the same process, and not for long
		case !isLockTimeout(err):
			return done, migrationError(direction, err)
		}
		if waited := time.Since(begun); m.lockWait > 0 && waited >= m.lockWait {
			return done, fmt.Errorf("migrate %s: gave up after %s: %w; waited for %s", direction, waited.Round(time.Second), err, pg.Describe(holders))
		}
		if text := pg.Describe(holders); text != reported {
			m.log.WarnContext(ctx, "migrations wait for a lock; they are tried again, and sweeps go on meanwhile", "holders", text)
			reported = text
		}
		select {
		case <-ctx.Done():
			return done, fmt.Errorf("migrate %s: %w while waiting: %w; waited for %s", direction, context.Cause(ctx), err, pg.Describe(holders))
		case <-time.After(pause):
		}
	}
}

// isLockTimeout reports whether a statement did not get a lock in time.
func isLockTimeout(err error) bool {
	const lockNotAvailable = "55P03"
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == lockNotAvailable
}

// watch looks for the sessions that a migration waits for, which are known only while
// it does.
func (m *Migrator) watch(ctx context.Context) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			// A look that fails tells nothing; the migration itself tells what is wrong.
			if seen, err := pg.Blocking(ctx, m.pool, m.application); err == nil && len(seen) > 0 {
				w.seen = seen
			}
		}
	}()
	return w
}

type watch struct {
	cancel context.CancelFunc
	ended  chan struct{}
	seen   []pg.Session // to be read when ended is closed
}

// end ends the looking, and returns the sessions that were seen last.
func (w *watch) end() []pg.Session {
	w.cancel()
	<-w.ended
	return w.seen
}
