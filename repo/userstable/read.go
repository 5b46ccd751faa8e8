package userstable

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"syncer/internal/pg"
)

// Most statements on the users table take milliseconds; cutting a range of 50,000 rows
// through a selective condition may read the whole table. A slow database reports its own
// statement_timeout; a lost connection reports nothing. So the first try of a statement is
// short, and the second, only after a statement_timeout, is long.
const (
	quick   = 10 * time.Second
	timeout = 5 * time.Minute
	grace   = 10 * time.Second // how much later the report of a statement_timeout may come
)

// try is one attempt to execute a statement.
type try struct {
	begin  pgx.TxOptions // of a transaction with a statement_timeout
	within time.Duration // the time for all answers of that transaction
}

// settings are the settings on which the text of keys depends. Keys travel as text and
// must read back as the same keys, whatever the database is set to: "CST", which styles
// other than ISO write, is ambiguous. bytea_output is not among them: bytea reads all of
// its forms, and user_id may depend on it. With row_security off Postgres refuses
// statements from which policies would hide rows; syncer would take the users of hidden
// rows for users who left.
var settings = []string{
	"datestyle = 'ISO'", "intervalstyle = 'postgres'", "extra_float_digits = 1", "array_nulls = on", "lc_monetary = 'C'",
	"row_security = off",
}

func tryFor(timeout, grace time.Duration) try {
	begin := fmt.Sprintf("BEGIN READ ONLY; SET LOCAL statement_timeout = %d; SET LOCAL %s",
		timeout.Milliseconds(), strings.Join(settings, "; SET LOCAL "))
	return try{begin: pgx.TxOptions{BeginQuery: begin}, within: timeout + grace}
}

// errNoAnswer reports that a connection was lost.
var errNoAnswer = errors.New("no answer")

// read runs f in a read-only transaction, once there is a place among the statements
// that read the table. After a statement_timeout it runs f again, with more time.
func (t *Table) read(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	return t.readWithin(ctx, t.tries, f)
}

// readWithin is read with the given tries.
func (t *Table) readWithin(ctx context.Context, tries []try, f func(context.Context, pgx.Tx) error) error {
	select {
	case t.reading <- struct{}{}:
		defer func() { <-t.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var err error
	for _, try := range tries {
		if err = t.readOnce(ctx, try, f); pg.SQLState(err) != pg.QueryCanceled {
			return err
		}
	}
	return err
}

// readOnce runs f over one connection. It returns errNoAnswer if that was lost.
func (t *Table) readOnce(ctx context.Context, try try, f func(context.Context, pgx.Tx) error) error {
	conn, err := t.db.Pool().Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeoutCause(ctx, try.within, errNoAnswer)
	defer cancel()
	err = rolledBack(ctx, conn, try.begin, f)
	if err != nil && context.Cause(ctx) == errNoAnswer {
		return fmt.Errorf("%w within %s: %w", errNoAnswer, try.within, err)
	}
	return err
}

// rolledBack runs f in a transaction that is always rolled back. The configured SQL can
// change any setting of the session; the next statement starts from the original ones.
func rolledBack(ctx context.Context, conn *pgxpool.Conn, begin pgx.TxOptions, f func(context.Context, pgx.Tx) error) error {
	tx, err := conn.BeginTx(ctx, begin)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // if it fails, the connection is closed
	return f(ctx, tx)
}

// readRow reads the only row of a statement.
func (t *Table) readRow(ctx context.Context, statement string, args []any, into ...any) error {
	return t.read(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, statement, args...).Scan(into...)
	})
}

// readRows reads the rows of a statement with collect.
func (t *Table) readRows(ctx context.Context, statement string, args []any, collect func(pgx.Rows) error) error {
	return t.read(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, statement, args...)
		if err != nil {
			return err
		}
		return collect(rows)
	})
}
