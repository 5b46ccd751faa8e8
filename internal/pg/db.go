package pg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config describes a database and how to use it.
type Config struct {
	URL string
	// Schema takes the place of syncer in statements, which name tables as
	// syncer.table. A simple lower-case identifier; "": statements stay as they are.
	Schema string
	// MaxConns is the largest number of connections of this process.
	MaxConns int
	// Process names this process in application_name, after "syncer ".
	Process string
	// Application is the application_name of sessions behind a pooler; "": syncer.
	Application string
	// SilentFor is how long Postgres waits for a session that is idle in a transaction
	// before it ends the session: the process is frozen or cut off, and its locks hold up
	// others. 0: no limit.
	SilentFor time.Duration
	// PollOnly says that the URL leads to a pooler in transaction mode.
	PollOnly bool
	// AnswerWithin bounds each statement, and each batch of statements. A statement
	// without an answer fails, and its connection is closed. 0: no limit.
	AnswerWithin time.Duration
	// ReadOnly makes the sessions read-only, and lets them reach a standby. Postgres then
	// ends a statement after AnswerWithin, too.
	ReadOnly bool
	// Now replaces the database's clock, for simulations. If nil, the database's is used.
	Now func() time.Time
	// TrustClock accepts the database's clock however far ahead it is.
	TrustClock bool
	// Tracer observes statements, if not nil.
	Tracer pgx.QueryTracer
	// Location is the zone of the times that statements return. If nil, the machine's.
	Location *time.Location
}

// DB is a pool of connections to one database. It puts the schema into each statement,
// and bounds it. Safe for concurrent use.
type DB struct {
	pool    *pgxpool.Pool
	config  Config
	begin   pgx.TxOptions // of transactions that take locks
	clock   *clock
	patient bool
}

// errURL does not quote the URL. The driver's own error hides the password, but has to
// guess where it is in a URL that cannot be parsed.
var errURL = errors.New("it cannot be read as postgres://user:password@host:port/database?sslmode=…; in user and password @ is written %40, / %2F, : %3A and % %25")

// New prepares a pool, which connects when it is first used. It fails if the URL cannot
// be read; the error does not quote it. Close the DB after use.
func New(ctx context.Context, c Config) (*DB, error) {
	poolConfig, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, errURL
	}
	db := &DB{config: c, clock: &clock{}, begin: pgx.TxOptions{IsoLevel: isolation}}
	poolConfig.MaxConns = int32(c.MaxConns)
	poolConfig.ConnConfig.Tracer = c.Tracer
	boundConnecting(poolConfig)
	if !c.ReadOnly {
		dropReadOnly(poolConfig)
	}
	params := poolConfig.ConnConfig.RuntimeParams
	params["client_encoding"] = UTF8 // whatever role, database, server or URL set
	if c.PollOnly {
		params["application_name"] = cmp.Or(c.Application, "syncer")
		keepNothing(poolConfig)
		if c.SilentFor > 0 {
			db.begin = pgx.TxOptions{BeginQuery: beginAs(db.SessionName(), c.SilentFor)}
		}
	} else {
		params["application_name"] = db.SessionName()
		params[probe] = "off"
		if c.ReadOnly {
			onlyRead(params, c.AnswerWithin)
		}
		overrideSession(poolConfig)
		if c.SilentFor > 0 {
			endSilent(params, c.SilentFor)
		}
	}
	if c.Location != nil {
		returnTimesIn(poolConfig, c.Location)
	}
	if db.pool, err = pgxpool.NewWithConfig(ctx, poolConfig); err != nil {
		return nil, fmt.Errorf("prepare connections: %w", err)
	}
	return db, nil
}

// Close ends the connections. It waits for Postgres to take note, but at most 2 s: a
// server that is out of reach notices by itself.
func (db *DB) Close() {
	const patience = 2 * time.Second
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		db.pool.Close()
	}()
	select {
	case <-closed:
	case <-time.After(patience):
	}
}

// Pool returns the pool, for the queue, whose client has timeouts of its own. Statements
// that are sent through it have neither the schema nor the deadline of the DB.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Schema returns the schema that takes the place of syncer.
func (db *DB) Schema() string { return db.config.Schema }

// PollOnly reports whether a pooler is in between, which passes on no notifications.
func (db *DB) PollOnly() bool { return db.config.PollOnly }

// Process returns the name of this process.
func (db *DB) Process() string { return db.config.Process }

// SessionName returns the application_name of this process's sessions. Behind a pooler
// they have it only within transactions.
func (db *DB) SessionName() string { return "syncer " + db.config.Process }

// Role returns the role of the sessions, as the URL says.
func (db *DB) Role() string {
	c := db.pool.Config().ConnConfig
	return cmp.Or(c.RuntimeParams["role"], c.User)
}

// ExplainRefusal adds to an error about a missing privilege the command that grants it. It
// returns other errors as they are.
func (db *DB) ExplainRefusal(ctx context.Context, err error) error {
	if SQLState(err) != InsufficientPrivilege {
		return err
	}
	var role string
	if err := db.QueryRow(ctx, `SELECT current_user::text`).Scan(&role); err != nil {
		role = db.Role()
	}
	return fmt.Errorf("%w\nrole %s lacks this privilege. As the owner of schema %s run\n\tsyncer grant-worker %s\nfor run and backfill, or\n\tsyncer grant-reader %s\nto read reports; --print shows the SQL", err, role, db.Schema(), role, role)
}

// placeholder begins the names of tables and functions in statements.
var placeholder = regexp.MustCompile(`\bsyncer\.`)

// SQL returns a statement with the schema in place of syncer.
func (db *DB) SQL(statement string) string {
	if db.config.Schema == "syncer" || db.config.Schema == "" {
		return statement
	}
	return placeholder.ReplaceAllLiteralString(statement, pgx.Identifier{db.config.Schema}.Sanitize()+".")
}

// Patient returns the same DB without deadlines, for statements that read whole tables.
func (db *DB) Patient() *DB {
	patient := *db
	patient.patient = true
	return &patient
}

// Ping reports whether Postgres answers.
func (db *DB) Ping(ctx context.Context) error {
	if _, err := db.Exec(ctx, "-- ping"); err != nil {
		return fmt.Errorf("ping the database: %w", err)
	}
	return nil
}

// ErrReadOnly reports that the database accepts no writes.
var ErrReadOnly = errors.New("the database takes no writes")

// CheckWritable returns ErrReadOnly if the database is a standby, or is set to be
// read-only.
func (db *DB) CheckWritable(ctx context.Context) error {
	var standby, refuses bool
	err := db.QueryRow(ctx, `SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean`).Scan(&standby, &refuses)
	switch {
	case err != nil:
		return fmt.Errorf("look whether the database takes writes: %w", err)
	case standby:
		return fmt.Errorf("%w: it is a standby; [database] url must lead to the primary (postgres://host-a,host-b/app?target_session_attrs=read-write finds it among several)", ErrReadOnly)
	case refuses:
		return fmt.Errorf("%w: default_transaction_read_only is on, for the server, the database or the role", ErrReadOnly)
	}
	return nil
}
