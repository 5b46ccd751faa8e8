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

	"syncer/internal/pg"
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
	db     *pg.DB
	shared bool // the connections are those of other tables too
	tries  []try
	// reading holds a place for each statement.
	reading chan struct{}
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

	mu   sync.Mutex
	open map[string]*pg.DB // by URL
}

// Open prepares to read a users table; it connects when first used.
func (d *UsersDatabases) Open(ctx context.Context, c UsersConfig) (*Users, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	db := d.open[c.URL]
	if db == nil {
		var err error
		if db, err = openUsersDB(ctx, c.URL, usersConns, d.Tracer); err != nil {
			return nil, err
		}
		if d.open == nil {
			d.open = make(map[string]*pg.DB)
		}
		d.open[c.URL] = db
	}
	return newUsers(c, db, true), nil
}

// Close ends the connections of all tables.
func (d *UsersDatabases) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, db := range d.open {
		db.Close()
	}
	d.open = nil
}

// OpenUsers prepares to read a users table over connections of its own; it
// connects when first used.
func OpenUsers(ctx context.Context, c UsersConfig) (*Users, error) {
	db, err := openUsersDB(ctx, c.URL, usersConns, nil)
	if err != nil {
		return nil, err
	}
	return newUsers(c, db, false), nil
}

func newUsers(c UsersConfig, db *pg.DB, shared bool) *Users {
	tries := []try{tryFor(usersQuick, usersGrace), tryFor(usersTimeout, usersGrace)}
	return &Users{config: c, db: db, shared: shared, tries: tries, reading: make(chan struct{}, usersReads)}
}

// openUsersDB prepares for a pooler in between, whether there is one or not: statements
// take so long that sending their text each time does not matter. Their deadlines are
// those of their try.
func openUsersDB(ctx context.Context, url string, conns int, tracer pgx.QueryTracer) (*pg.DB, error) {
	db, err := pg.New(ctx, pg.Config{URL: url, MaxConns: conns, PollOnly: true, Application: "syncer users", Tracer: tracer})
	if err != nil {
		return nil, fmt.Errorf("read users.url: %w", err)
	}
	return db, nil
}

// readingSettings are the settings on which the text of keys depends. Keys travel as text
// and must read back as the same keys, whatever the database is set to: "CST", which
// other styles than ISO write, is ambiguous. bytea_output is not among them: bytea
// reads all of its forms, and user_id may depend on it. With row_security off Postgres
// refuses statements from which policies would hide rows; syncer would take the users of
// hidden rows for users who left.
var readingSettings = []string{
	"datestyle = 'ISO'", "intervalstyle = 'postgres'", "extra_float_digits = 1", "array_nulls = on", "lc_monetary = 'C'",
	"row_security = off",
}

// beginReading begins a transaction that cannot write, in which a statement may
// take so long.
func beginReading(timeout time.Duration) pgx.TxOptions {
	return pgx.TxOptions{BeginQuery: fmt.Sprintf("BEGIN READ ONLY; SET LOCAL statement_timeout = %d; SET LOCAL %s",
		timeout.Milliseconds(), strings.Join(readingSettings, "; SET LOCAL "))}
}

// read lets f read, and once more with more time where the database says that it
// had too little.
func (u *Users) read(ctx context.Context, f func(context.Context, pgx.Tx) error) error {
	var err error
	for _, t := range u.tries {
		if err = u.readWithin(ctx, t, f); pg.SQLState(err) != pg.QueryCanceled {
			return err
		}
	}
	return err
}

// errNoAnswer says that a connection was lost.
var errNoAnswer = errors.New("no answer")

// readWithin lets f read over one connection: errNoAnswer when that was lost.
func (u *Users) readWithin(ctx context.Context, t try, f func(context.Context, pgx.Tx) error) error {
	conn, err := u.db.Pool().Acquire(ctx)
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
		u.db.Close()
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

// writeCondition adds the configured condition to a WHERE.
func (u *Users) writeCondition(b *strings.Builder) {
	if u.config.Where != "" {
		// On lines of its own: it may end in a comment.
		fmt.Fprintf(b, "\n  AND (\n%s\n)", u.config.Where)
	}
}

// Count counts the rows that a whole sweep goes through.
func (u *Users) Count(ctx context.Context) (int64, error) {
	done, err := u.place(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	var b strings.Builder
	fmt.Fprintf(&b, "SELECT count(*)\nFROM %s\nWHERE %s", u.table(), u.present())
	u.writeCondition(&b)
	var n int64
	if err := u.one(ctx, b.String(), nil, &n); err != nil {
		return 0, u.explain("count the rows", err)
	}
	return n, nil
}

// Check looks at the table as a sweep will use it, without changing anything:
// that it and the key column are there and that a page can be read.
func (u *Users) Check(ctx context.Context) error {
	w := u.Walk("")
	if _, _, err := w.Cut(ctx, nil, 1); err != nil {
		return err
	}
	_, err := w.Page(ctx, nil, nil, 1)
	return err
}

func (u *Users) mistake(text string, err error) error {
	return &UsersError{Table: u.Name(), Text: text, Err: err}
}

// hiddenRows is the routine of Postgres that refuses a statement because row security
// would hide rows. Neither the SQLSTATE nor the message tells it from a missing
// privilege: the message is in the server's language.
const hiddenRows = "check_enable_rls"

// explain tells mistakes in the configuration (SQLSTATE classes 42: syntax and
// names, 22: data that does not fit the expression, 21: several values where one
// belongs, 25: it tries to write, and 0A: not supported) from a database that cannot
// be reached now.
func (u *Users) explain(doing string, err error) error {
	code := pg.SQLState(err)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Routine == hiddenRows {
		return u.mistake(fmt.Sprintf("%s: %s: its policies hide rows from this role, and syncer would take the users of hidden rows for users who left: ALTER ROLE … BYPASSRLS, or set [users] table to a view that belongs to the table's owner (and choose rows with [users] where)", doing, pgErr.Message), err)
	}
	_, away := errors.AsType[*pgconn.ConnectError](err)
	switch {
	case away && strings.HasPrefix(code, "42"):
		return u.mistake(fmt.Sprintf("%s: the database refuses a parameter of [users] url ([database] url, where there is none): %v", doing, err), err)
	case code == pg.InsufficientPrivilege:
		role := pgx.Identifier{u.db.Role()}.Sanitize()
		grant := fmt.Sprintf("GRANT SELECT ON %s TO %s", u.table(), role)
		if len(u.config.Table) > 1 {
			grant = fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; %s", pgx.Identifier(u.config.Table[:1]).Sanitize(), role, grant)
		}
		return u.mistake(fmt.Sprintf("%s: this role may not read it (%v): %s; if the key's type is in another schema, USAGE on that too", doing, err, grant), err)
	case code == pg.IdleInTransactionTimeout: // this process was silent for too long
		return fmt.Errorf("users table %s: %s: %w", u.Name(), doing, err)
	case strings.HasPrefix(code, "42"), strings.HasPrefix(code, "22"), strings.HasPrefix(code, "21"), strings.HasPrefix(code, "25"), strings.HasPrefix(code, "0A"):
		return u.mistake(fmt.Sprintf("%s: %v: check [users] user_id, where and key_column", doing, err), err)
	case code == pg.QueryCanceled:
		return fmt.Errorf("users table %s: %s: %w: if it took longer than %s, an index that serves [users] where is missing", u.Name(), doing, err, usersTimeout)
	}
	if away || errors.Is(err, errNoAnswer) {
		return fmt.Errorf("users table %s: %s: no connection to the database that [users] url names ([database] url, where there is none): %w", u.Name(), doing, err)
	}
	return fmt.Errorf("users table %s: %s: %w", u.Name(), doing, err)
}
