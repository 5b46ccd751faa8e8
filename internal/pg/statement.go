package pg

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// sender is a connection or a transaction.
type sender interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error)
}

// statements sends statements with the DB's schema and deadline.
type statements struct {
	to   sender
	db   *DB
	done func() // is called after each statement
}

// acquire takes a connection from the pool for one statement.
func (db *DB) acquire(ctx context.Context) (statements, error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return statements{}, err
	}
	return statements{conn, db, conn.Release}, nil
}

// bound returns the context of one statement. Call done after it.
func (s statements) bound(ctx context.Context) (_ context.Context, done func()) {
	if s.db.config.AnswerWithin == 0 || s.db.patient {
		return ctx, s.done
	}
	ctx, cancel := context.WithTimeout(ctx, s.db.config.AnswerWithin)
	return ctx, func() {
		cancel()
		s.done()
	}
}

// Exec executes a statement.
func (s statements) Exec(ctx context.Context, statement string, args ...any) (pgconn.CommandTag, error) {
	ctx, done := s.bound(ctx)
	defer done()
	return s.to.Exec(ctx, s.db.SQL(statement), args...)
}

// Query executes a statement and returns its rows, which the caller has to close.
func (s statements) Query(ctx context.Context, statement string, args ...any) (pgx.Rows, error) {
	ctx, done := s.bound(ctx)
	r, err := s.to.Query(ctx, s.db.SQL(statement), args...)
	if err != nil {
		done()
		return nil, err
	}
	return rows{r, done}, nil
}

// QueryRow executes a statement and returns its row, which the caller has to scan.
func (s statements) QueryRow(ctx context.Context, statement string, args ...any) pgx.Row {
	ctx, done := s.bound(ctx)
	return row{s.to.QueryRow(ctx, s.db.SQL(statement), args...), done}
}

// RunBatch sends several statements in one round trip, and reads all results.
func (s statements) RunBatch(ctx context.Context, batch *pgx.Batch) error {
	ctx, done := s.bound(ctx)
	defer done()
	for _, q := range batch.QueuedQueries {
		q.SQL = s.db.SQL(q.SQL)
	}
	return s.to.SendBatch(ctx, batch).Close()
}

// CopyFrom copies rows into a table of the schema.
func (s statements) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	ctx, done := s.bound(ctx)
	defer done()
	return s.to.CopyFrom(ctx, table, columns, source)
}

// Exec executes a statement.
func (db *DB) Exec(ctx context.Context, statement string, args ...any) (pgconn.CommandTag, error) {
	s, err := db.acquire(ctx)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	return s.Exec(ctx, statement, args...)
}

// Query executes a statement and returns its rows, which the caller has to close.
func (db *DB) Query(ctx context.Context, statement string, args ...any) (pgx.Rows, error) {
	s, err := db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return s.Query(ctx, statement, args...)
}

// QueryRow executes a statement and returns its row, which the caller has to scan.
func (db *DB) QueryRow(ctx context.Context, statement string, args ...any) pgx.Row {
	s, err := db.acquire(ctx)
	if err != nil {
		return noRow{err}
	}
	return s.QueryRow(ctx, statement, args...)
}

// RunBatch sends several statements in one round trip, and reads all results. Postgres
// runs them in one transaction.
func (db *DB) RunBatch(ctx context.Context, batch *pgx.Batch) error {
	s, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	return s.RunBatch(ctx, batch)
}

// Querier is a DB, a Tx, or a pool or connection of the driver.
type Querier interface {
	Query(ctx context.Context, statement string, args ...any) (pgx.Rows, error)
}

// Collect returns the rows of a statement, each read by scan.
func Collect[T any](ctx context.Context, q Querier, scan pgx.RowToFunc[T], statement string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// rows calls done when its statement has ended.
type rows struct {
	pgx.Rows
	done func()
}

func (r rows) Close() {
	r.Rows.Close()
	r.done()
}

func (r rows) Next() bool {
	more := r.Rows.Next()
	if !more {
		r.Close()
	}
	return more
}

// row calls done when it has been scanned.
type row struct {
	pgx.Row
	done func()
}

func (r row) Scan(into ...any) error {
	defer r.done()
	return r.Row.Scan(into...)
}

// noRow is the row of a statement that was not sent.
type noRow struct{ err error }

func (r noRow) Scan(...any) error { return r.err }

// Tx is a transaction. As a pgx.Tx it serves other packages' statements too; those
// that SendBatch sends have no deadline.
type Tx struct {
	statements
	raw
}

// raw is a type of its own so that the methods of statements take precedence.
type raw struct{ pgx.Tx }

// Patient returns the same transaction without deadlines, for statements that read whole
// tables.
func (tx *Tx) Patient() *Tx {
	patient := *tx
	patient.db = tx.db.Patient()
	return &patient
}

// Commit commits the transaction.
func (tx *Tx) Commit(ctx context.Context) error {
	ctx, done := tx.bound(ctx)
	defer done()
	return tx.raw.Commit(ctx)
}

// Rollback undoes the transaction, unless it has ended.
func (tx *Tx) Rollback(ctx context.Context) error {
	ctx, done := tx.bound(ctx)
	defer done()
	return tx.raw.Rollback(ctx)
}

// isolation is the level of all transactions that take locks, whatever role, database and
// server set: locking relies on it that each statement sees what was committed before it.
const isolation = pgx.ReadCommitted

// InTx runs f in a transaction. After a serialization failure or a deadlock f runs
// again, at most three times.
func (db *DB) InTx(ctx context.Context, f func(*Tx) error) error {
	var err error
	for range 3 {
		err = db.InTxOnce(ctx, f)
		if code := SQLState(err); code != SerializationFailure && code != DeadlockDetected {
			return err
		}
	}
	return err
}

// InTxOnce runs f in a transaction, once.
func (db *DB) InTxOnce(ctx context.Context, f func(*Tx) error) error {
	return db.inTx(ctx, db.begin, f)
}

// InSnapshot runs f in a read-only transaction in which all statements see the database
// as the first one did.
func (db *DB) InSnapshot(ctx context.Context, f func(*Tx) error) error {
	return db.inTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, f)
}

func (db *DB) inTx(ctx context.Context, options pgx.TxOptions, f func(*Tx) error) error {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return pgx.BeginTxFunc(ctx, beginner{db, conn}, options, func(tx pgx.Tx) error { return f(tx.(*Tx)) })
}

// beginner begins transactions whose statements have the schema and the deadline.
type beginner struct {
	db   *DB
	conn interface {
		BeginTx(context.Context, pgx.TxOptions) (pgx.Tx, error)
	}
}

func (b beginner) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	s := statements{db: b.db, done: func() {}}
	bounded, done := s.bound(ctx)
	defer done()
	tx, err := b.conn.BeginTx(bounded, options)
	if err != nil {
		return nil, err
	}
	s.to = tx
	return &Tx{s, raw{tx}}, nil
}
