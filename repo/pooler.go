package repo

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

// A pooler in transaction mode gives each transaction whatever session is free.
// So nothing may be left in a session: no prepared statement, no setting, no lock,
// no LISTEN. What a transaction needs it is told at its beginning.

// probe is a parameter of the start of a connection that Postgres takes and
// nobody reads. PgBouncer refuses those it does not know; what lets them pass and
// forgets them shows by its not being set.
const probe = "syncer.poll_only"

const probeSQL = `SELECT current_setting('` + probe + `', true) = 'off'`

// errPooler says that there is a pooler, of which Open was not told. It would work
// at first, and fail later in odd ways.
var errPooler = errors.New("a connection pooler is between here and the database: set [database] poll_only = true (or SYNCER_DATABASE_POLL_ONLY), or connect to Postgres itself")

// expectDirect lets probeDirect find out whether there is a pooler.
func expectDirect(c *pgxpool.Config) { c.ConnConfig.RuntimeParams[probe] = "off" }

// explainPooler adds to an error what to do when a pooler refused a parameter.
func explainPooler(err error) error {
	const protocolViolation, refused = "08P01", "unsupported startup parameter" // PgBouncer's words
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == protocolViolation && strings.HasPrefix(pgErr.Message, refused) {
		return fmt.Errorf("%w\n%w", err, errPooler)
	}
	return err
}

// probeDirect prepares no statement: behind a pooler it may be there already.
func (s *Store) probeDirect(ctx context.Context) error {
	var direct *bool
	if err := s.pool.QueryRow(ctx, probeSQL, pgx.QueryExecModeExec).Scan(&direct); err != nil {
		return err
	}
	if direct == nil || !*direct {
		return errPooler
	}
	return nil
}

// keepNothing makes connections leave nothing behind in a session. What is kept
// of a statement is the types of its parameters and columns, on this side; it goes
// to the database whole each time, in one message.
func keepNothing(c *pgxpool.Config) {
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	const descriptions = 512 // per connection; a URL can have forbidden it
	c.ConnConfig.DescriptionCacheCapacity = max(c.ConnConfig.DescriptionCacheCapacity, descriptions)
}

// beginAs begins a transaction behind a pooler: under the name by which
// endSilentSQL finds it, which the session bears for no longer, and to be ended by
// the database when it hears nothing from it.
func beginAs(process string, silentFor time.Duration) string {
	return fmt.Sprintf("BEGIN ISOLATION LEVEL "+isolation+"; SET LOCAL application_name = %s; SET LOCAL idle_in_transaction_session_timeout = %d",
		literal(sessionName(process)), silentFor.Milliseconds())
}

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
