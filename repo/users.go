package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// UsersConfig describes the customer's users table. UserID and Where are SQL by
// design; they run in read-only transactions.
type UsersConfig struct {
	URL       string   // of the database that holds the table
	Table     []string // name, or schema and name
	KeyColumn string   // unique, indexed, orderable: what pages are cut by
	UserID    string   // SQL expression that yields the IM user id
	Where     string   // SQL condition; "": all rows
}

// Users reads the customer's users table by keyset, in the order of its key
// column, and never writes to it. Safe for concurrent use.
type Users struct {
	config UsersConfig
	pool   *pgxpool.Pool
	shared bool // the pool is that of other tables too
	tries  []try
	// reading holds a place for each statement.
	reading chan struct{}

	mu      sync.Mutex
	keyType string // SQL type of the key column, once known
}

// UsersError is a mistake in the description of the users table: no retry will
// mend it.
type UsersError struct {
	Table string
	Text  string // what is wrong and which setting to change
	Err   error
}

// Error says what is wrong with which table.
func (e *UsersError) Error() string { return fmt.Sprintf("users table %s: %s", e.Table, e.Text) }

// Unwrap gives the database's error, if there was one.
func (e *UsersError) Unwrap() error { return e.Err }

// A statement on the users table takes milliseconds, as a rule; cutting a range of
// 50,000 through a selective WHERE may read the whole table. Whether the database
// is slow or the connection lost shows when the statement has to end: of the one
// the database tells. So a statement is given little time at first, and all of it
// once the database says that this is too little.
const (
	usersQuick   = 10 * time.Second
	usersTimeout = 5 * time.Minute
	usersGrace   = 10 * time.Second // how much longer the answer may take that it took too long
)

// try is how long a statement on the users table may take.
type try struct {
	begin  pgx.TxOptions // of a transaction in which the database bounds it
	within time.Duration // of all the answers of that transaction
}

func tryFor(timeout, grace time.Duration) try {
	return try{begin: beginReading(timeout), within: timeout + grace}
}

// usersReads bounds the statements that read one users table at once: one for
// each range that is being read at the moment, and reading is quick. A table that
// is locked, or slow, keeps no more connections than that from the others.
const usersReads = 4

// usersConns bounds the connections to one database with users tables, however
// many they are. Their apps may all have a tick at the same time.
const usersConns = 4 * usersReads

// UsersDatabases opens users tables, of which those in the same database share
// its connections: an app more is no connection more. The zero value is ready
// for use. Safe for concurrent use.
type UsersDatabases struct {
	// Tracer is told of statements; nil: nobody is.
	Tracer pgx.QueryTracer

	mu    sync.Mutex
	pools map[string]*pgxpool.Pool // by URL
}

// Open prepares to read a users table; it connects when first used.
func (d *UsersDatabases) Open(ctx context.Context, c UsersConfig) (*Users, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pool := d.pools[c.URL]
	if pool == nil {
		var err error
		if pool, err = openUsersPool(ctx, c.URL, d.Tracer); err != nil {
			return nil, err
		}
		if d.pools == nil {
			d.pools = make(map[string]*pgxpool.Pool)
		}
		d.pools[c.URL] = pool
	}
	return newUsers(c, pool, true), nil
}

// Close ends the connections of all tables.
func (d *UsersDatabases) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, pool := range d.pools {
		closePool(pool)
	}
	d.pools = nil
}

// OpenUsers prepares to read a users table over connections of its own; it
// connects when first used.
func OpenUsers(ctx context.Context, c UsersConfig) (*Users, error) {
	pool, err := openUsersPool(ctx, c.URL, nil)
	if err != nil {
		return nil, err
	}
	return newUsers(c, pool, false), nil
}

func newUsers(c UsersConfig, pool *pgxpool.Pool, shared bool) *Users {
	tries := []try{tryFor(usersQuick, usersGrace), tryFor(usersTimeout, usersGrace)}
	return &Users{config: c, pool: pool, shared: shared, tries: tries, reading: make(chan struct{}, usersReads)}
}

func openUsersPool(ctx context.Context, url string, tracer pgx.QueryTracer) (*pgxpool.Pool, error) {
	poolConfig, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read users.url: %w", errURL)
	}
	poolConfig.MaxConns = usersConns
	boundWaits(poolConfig, 0, tracer) // statements have the bounds of their try
	poolConfig.ConnConfig.RuntimeParams["application_name"] = "syncer users"
	// Whether or not a pooler is between: a statement takes so long that it does not
	// matter that it is sent whole each time.
	keepNothing(poolConfig)
	pool, err := pgxpool.NewWithConfig(ctx, poolConfig)
	if err != nil {
		return nil, fmt.Errorf("connect to the users database: %w", err)
	}
	return pool, nil
}

// beginReading begins a transaction that cannot write, in which a statement may
// take so long. Keys travel as text and must be read back as what they were, whatever
// the database is set to: "CST" for one, which other styles write, is ambiguous.
func beginReading(timeout time.Duration) pgx.TxOptions {
	return pgx.TxOptions{BeginQuery: fmt.Sprintf(
		"BEGIN READ ONLY; SET LOCAL statement_timeout = %d; SET LOCAL datestyle = 'ISO'; SET LOCAL extra_float_digits = 1", timeout.Milliseconds())}
}

// read lets f read, and once more with more time where the database says that it
// had too little.
func (u *Users) read(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	var err error
	for _, t := range u.tries {
		if err = u.readWithin(ctx, t, f); sqlState(err) != queryCanceled {
			return err
		}
	}
	return err
}

// errNoAnswer says that a connection was lost.
var errNoAnswer = errors.New("no answer")

// readWithin lets f read over one connection: errNoAnswer when that was lost.
func (u *Users) readWithin(ctx context.Context, t try, f func(context.Context, pgx.Tx) error) error {
	conn, err := u.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeoutCause(ctx, t.within, errNoAnswer)
	defer cancel()
	err = readUndone(ctx, conn, t.begin, f)
	if err != nil && context.Cause(ctx) == errNoAnswer {
		return fmt.Errorf("%w within %s: %w", errNoAnswer, t.within, err)
	}
	return err
}

// readUndone lets f read in a transaction that is always undone: where and user_id
// can change settings of the session, these too, and the next statement starts from
// what they were all the same.
func readUndone(ctx context.Context, conn *pgxpool.Conn, begin pgx.TxOptions, f func(context.Context, pgx.Tx) error) error {
	tx, err := conn.BeginTx(ctx, begin)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // a connection on which it fails is closed
	return f(ctx, tx)
}

// one reads the row of a statement.
func (u *Users) one(ctx context.Context, statement string, args []any, columns ...any) error {
	return u.read(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, statement, args...).Scan(columns...)
	})
}

// Close ends the connections, unless they are shared: then UsersDatabases does.
func (u *Users) Close() {
	if !u.shared {
		closePool(u.pool)
	}
}

// place waits until a statement may read the table; call done after it.
func (u *Users) place(ctx context.Context) (done func(), err error) {
	select {
	case u.reading <- struct{}{}:
		return func() { <-u.reading }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Name is the table as messages show it.
func (u *Users) Name() string { return strings.Join(u.config.Table, ".") }

func (u *Users) table() string { return pgx.Identifier(u.config.Table).Sanitize() }

// column is the key column, qualified: a bare name in ORDER BY would mean the
// column of the result, which is its text.
func (u *Users) column() string {
	return u.table() + "." + pgx.Identifier{u.config.KeyColumn}.Sanitize()
}

// slice gives FROM and WHERE of the keys after one and up to another, and their
// arguments. Keys travel as text and are compared as what the column is, in
// the column's own collation.
func (u *Users) slice(keyType string, after, upto *string) (string, []any) {
	var b strings.Builder
	var args []any
	fmt.Fprintf(&b, "FROM %s\nWHERE %s IS NOT NULL", u.table(), u.column())
	for _, bound := range []struct {
		operator string
		key      *string
	}{{">", after}, {"<=", upto}} {
		if bound.key != nil {
			args = append(args, *bound.key)
			fmt.Fprintf(&b, "\n  AND %s %s CAST($%d::text AS %s)", u.column(), bound.operator, len(args), keyType)
		}
	}
	if u.config.Where != "" {
		// On lines of its own: it may end in a comment.
		fmt.Fprintf(&b, "\n  AND (\n%s\n)", u.config.Where)
	}
	return b.String(), args
}

// Cut gives the key of the n-th row after one; ok is false when fewer are left.
func (u *Users) Cut(ctx context.Context, after *string, n int) (key string, ok bool, err error) {
	done, err := u.place(ctx)
	if err != nil {
		return "", false, err
	}
	defer done()
	keyType, err := u.key(ctx)
	if err != nil {
		return "", false, err
	}
	from, args := u.slice(keyType, after, nil)
	statement := fmt.Sprintf("SELECT %s::text\n%s\nORDER BY %s\nOFFSET %d LIMIT 1", u.column(), from, u.column(), n-1)
	err = u.one(ctx, statement, args, &key)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, u.explain("cut a range", err)
	}
	return key, true, nil
}

// Page gives at most limit rows after one key and up to another, in the order
// of the keys.
func (u *Users) Page(ctx context.Context, after, upto *string, limit int) (UserPage, error) {
	done, err := u.place(ctx)
	if err != nil {
		return UserPage{}, err
	}
	defer done()
	keyType, err := u.key(ctx)
	if err != nil {
		return UserPage{}, err
	}
	from, args := u.slice(keyType, after, upto)
	statement := fmt.Sprintf("SELECT %s::text, (\n%s\n)::text\n%s\nORDER BY %s\nLIMIT %d", u.column(), u.config.UserID, from, u.column(), limit)
	var page UserPage
	err = u.read(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, statement, args...)
		if err == nil {
			page, err = collectUsers(rows, limit)
		}
		return err
	})
	if err != nil {
		return UserPage{}, u.explain("read a page", err)
	}
	return page, nil
}

// Count counts the rows that a whole sweep goes through.
func (u *Users) Count(ctx context.Context) (int64, error) {
	done, err := u.place(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	from, args := u.slice("", nil, nil)
	var n int64
	if err := u.one(ctx, "SELECT count(*)\n"+from, args, &n); err != nil {
		return 0, u.explain("count the rows", err)
	}
	return n, nil
}

const keyColumnSQL = `
SELECT format_type(a.atttypid, a.atttypmod),
       c.relkind::text,
       a.attnotnull,
       EXISTS (
           SELECT FROM pg_index AS i
           WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
             AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum
       )
FROM pg_class AS c
LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = $2 AND NOT a.attisdropped AND a.attnum > 0
WHERE c.oid = to_regclass($1)`

// key gives the SQL type of the key column. The first time it also checks that
// paging by it loses no row: a table's key must be unique and indexed, and have
// no NULL within the condition.
func (u *Users) key(ctx context.Context) (string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.keyType != "" {
		return u.keyType, nil
	}
	var keyType *string
	var relkind string
	var notNull *bool
	var unique bool
	err := u.one(ctx, keyColumnSQL, []any{u.table(), u.config.KeyColumn}, &keyType, &relkind, &notNull, &unique)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", u.mistake("does not exist (or this role may not see it): check [users] table, and url if it is in another database", nil)
	case err != nil:
		return "", u.explain("look at the table", err)
	case keyType == nil:
		return "", u.mistake(fmt.Sprintf("has no column %s: check [users] key_column", u.config.KeyColumn), nil)
	}
	isTable := relkind == "r" || relkind == "p" || relkind == "m"
	if isTable && !unique {
		return "", u.mistake(fmt.Sprintf("column %s has no unique index of its own, so paging by it would lose users: set [users] key_column to the primary key, or create a unique index", u.config.KeyColumn), nil)
	}
	if !isTable || !*notNull {
		if err := u.refuseNullKeys(ctx); err != nil {
			return "", err
		}
	}
	u.keyType = *keyType
	return u.keyType, nil
}

func (u *Users) refuseNullKeys(ctx context.Context) error {
	statement := fmt.Sprintf("SELECT EXISTS (SELECT FROM %s WHERE %s IS NULL", u.table(), u.column())
	if u.config.Where != "" {
		statement += " AND (\n" + u.config.Where + "\n)"
	}
	var found bool
	if err := u.one(ctx, statement+")", nil, &found); err != nil {
		return u.explain("look for NULL keys", err)
	}
	if found {
		return u.mistake(fmt.Sprintf("column %s is NULL in some rows, which paging by it would never reach: set [users] key_column to a column without NULL, or leave those rows out with [users] where", u.config.KeyColumn), nil)
	}
	return nil
}

// Check looks at the table as a sweep will use it, without changing anything:
// that it and the key column are there and that a page can be read.
func (u *Users) Check(ctx context.Context) error {
	_, err := u.Page(ctx, nil, nil, 1)
	return err
}

func (u *Users) mistake(text string, err error) error {
	return &UsersError{Table: u.Name(), Text: text, Err: err}
}

// explain tells mistakes in the configuration (SQLSTATE classes 42: syntax and
// names, 22: data that does not fit the expression, 25: it tries to write, and
// 0A: not supported) from a database that cannot be reached now.
func (u *Users) explain(doing string, err error) error {
	code := sqlState(err)
	switch {
	case code == insufficientPrivilege:
		return u.mistake(doing+": this role may not read it: GRANT SELECT on it (and USAGE on its schema)", err)
	case code == idleInTransactionTimeout: // this process was silent for too long
		return fmt.Errorf("users table %s: %s: %w", u.Name(), doing, err)
	case strings.HasPrefix(code, "42"), strings.HasPrefix(code, "22"), strings.HasPrefix(code, "25"), strings.HasPrefix(code, "0A"):
		return u.mistake(fmt.Sprintf("%s: %v: check [users] user_id, where and key_column", doing, err), err)
	case code == queryCanceled:
		return fmt.Errorf("users table %s: %s: %w: if it took longer than %s, an index that serves [users] where is missing", u.Name(), doing, err, usersTimeout)
	}
	if _, away := errors.AsType[*pgconn.ConnectError](err); away || errors.Is(err, errNoAnswer) {
		return fmt.Errorf("users table %s: %s: no connection to the database that [users] url names ([database] url, where there is none): %w", u.Name(), doing, err)
	}
	return fmt.Errorf("users table %s: %s: %w", u.Name(), doing, err)
}
