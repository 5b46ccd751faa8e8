package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A pooler in transaction mode runs each transaction in any session that is free. So
// nothing may be left in a session: no prepared statement, no setting, no lock, no LISTEN.
// What a transaction needs is set at its beginning.

// probe is a start parameter that Postgres accepts and ignores. PgBouncer refuses
// parameters that it does not know; a pooler that drops it leaves it unset.
const probe = "syncer.poll_only"

const probeSQL = `SELECT current_setting('` + probe + `', true) = 'off'`

// errPooler reports a pooler although Config.PollOnly is not set. Statements would work
// at first, and fail later in confusing ways.
var errPooler = errors.New("a connection pooler is between here and the database: set [database] poll_only = true (or SYNCER_DATABASE_POLL_ONLY), or connect to Postgres itself")

// Connect connects, and fails if a pooler is in between that Config.PollOnly does not
// mention.
func (db *DB) Connect(ctx context.Context) error {
	if db.config.PollOnly {
		return db.Ping(ctx)
	}
	var direct *bool
	// Without preparing the statement: behind a pooler it may be prepared already.
	err := db.pool.QueryRow(ctx, probeSQL, pgx.QueryExecModeExec).Scan(&direct)
	const refused = "unsupported startup parameter" // PgBouncer's words
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok && pgErr.Code == protocolViolation && strings.HasPrefix(pgErr.Message, refused):
		return fmt.Errorf("%w\n%w", err, errPooler)
	case err != nil:
		return err
	case direct == nil || !*direct:
		return errPooler
	}
	return nil
}

// keepNothing makes connections leave nothing behind in a session. What is kept of a
// statement, on this side, is the types of its parameters and columns; its text is sent
// each time.
func keepNothing(c *pgxpool.Config) {
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	const descriptions = 512 // per connection; a URL can have turned them off
	c.ConnConfig.DescriptionCacheCapacity = max(c.ConnConfig.DescriptionCacheCapacity, descriptions)
}

// beginAs returns the statements that begin a transaction behind a pooler: under an
// application_name by which other processes find it, and with a limit for silence.
func beginAs(name string, silentFor time.Duration) string {
	return fmt.Sprintf("BEGIN ISOLATION LEVEL %s; SET LOCAL application_name = %s; SET LOCAL idle_in_transaction_session_timeout = %d",
		isolation, Literal(name), silentFor.Milliseconds())
}

// Literal returns text as an SQL literal.
func Literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
