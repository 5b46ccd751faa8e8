// Package repo holds every line of SQL that runs at run time: one file per
// aggregate, the statement beside the method that runs it.
//
// Statements name tables as syncer.table; the configured schema takes the place
// of syncer. Times are given by the caller, from Store.Now, never by now().
package repo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config says where syncer's own tables are.
type Config struct {
	URL      string
	Schema   string // a simple lower-case identifier
	MaxConns int    // connections of this process
	// Process names this process to the database and in sync_range.owner.
	Process string
	// SilentFor is after how long the database gives up a session of this process
	// from which it hears nothing, if it is in the middle of a transaction: the
	// process is frozen or cut off, and others need what it has locked. 0: never.
	SilentFor time.Duration
	// PollOnly: the URL is that of a pooler in transaction mode.
	PollOnly bool
	// AnswerWithin is after how long a statement that has no answer is given up, and
	// its connection with it. Those that go through whole tables are left alone. 0:
	// never.
	AnswerWithin time.Duration
	// Now replaces the database's clock, for simulations. nil: the database's.
	Now func() time.Time
	// TrustClock believes the database's clock however far it is ahead.
	TrustClock bool
	// Tracer is told of statements; nil: nobody is.
	Tracer pgx.QueryTracer
	// Location is the zone in which reports give times. nil: the machine's.
	Location *time.Location
}

// Store is syncer's own tables. Safe for concurrent use.
type Store struct {
	pool     *pgxpool.Pool
	schema   string
	process  string
	pollOnly bool
	begin    pgx.TxOptions // of transactions that lock something
	clock    *clock
	now      func() time.Time
	// trustClock: see Config.TrustClock
	trustClock bool

	tenantsMu sync.Mutex
	tenants   map[int16]string // with which EnsureApp found the apps; never changed, only replaced

	heldMu sync.Mutex
	held   map[claim]struct{} // what this process works on at present
}

// Open connects, and reads the database's clock. Close the store after use.
func Open(ctx context.Context, c Config) (*Store, error) {
	poolConfig, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, fmt.Errorf("read database.url: %w", errURL)
	}
	poolConfig.MaxConns = int32(c.MaxConns)
	boundWaits(poolConfig, c.AnswerWithin, c.Tracer)
	dropReadOnly(poolConfig)
	speakUTF8(poolConfig)
	s := &Store{schema: c.Schema, process: c.Process, pollOnly: c.PollOnly, clock: &clock{}, now: c.Now, trustClock: c.TrustClock, held: make(map[claim]struct{})}
	params := poolConfig.ConnConfig.RuntimeParams
	if c.PollOnly {
		keepNothing(poolConfig)
		params["application_name"] = "syncer"
		if c.SilentFor > 0 {
			s.begin.BeginQuery = beginAs(c.Process, c.SilentFor)
		}
	} else {
		expectDirect(poolConfig)
		params["application_name"] = sessionName(c.Process)
		overrideSession(poolConfig)
		if c.SilentFor > 0 {
			giveUpAfter(params, c.SilentFor)
		}
	}
	if c.Location != nil {
		readTimesIn(poolConfig, c.Location)
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, poolConfig); err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	if !c.PollOnly {
		err = s.probeDirect(ctx)
	}
	if err == nil {
		err = s.ReadClock(ctx)
	}
	if err != nil {
		closePool(s.pool)
		return nil, fmt.Errorf("connect to the database: %w", explainPooler(err))
	}
	return s, nil
}

// isolation is that of all transactions that say no other, whatever the database
// is set to: what is locked when, and what is looked at again, is made for it.
const isolation = "read committed"

// sessionName is what a process is called in pg_stat_activity.
func sessionName(process string) string { return "syncer " + process }

// giveUpAfter lets the database end sessions whose process is silent: one that
// is frozen amid a transaction, and one whose machine is out of reach, for which
// the system would probe only after two hours. Over a Unix socket the latter
// cannot be, and the settings have no effect.
func giveUpAfter(params map[string]string, silentFor time.Duration) {
	const probes = 3
	params["idle_in_transaction_session_timeout"] = strconv.FormatInt(silentFor.Milliseconds(), 10)
	params["tcp_keepalives_idle"] = strconv.Itoa(max(1, int(silentFor/(2*time.Second))))
	params["tcp_keepalives_interval"] = strconv.Itoa(max(1, int(silentFor/(2*probes*time.Second))))
	params["tcp_keepalives_count"] = strconv.Itoa(probes)
	// While an answer is under way there are no probes.
	params["tcp_user_timeout"] = strconv.FormatInt(silentFor.Milliseconds(), 10)
}

// errURL says nothing of what is in the URL: the driver hides the password in
// its own words, but of a URL that cannot be taken apart it has to guess where
// the password is.
var errURL = errors.New("it cannot be read as postgres://user:password@host:port/database?sslmode=…; in user and password @ is written %40, / %2F, : %3A and % %25")

// Close ends the connections.
func (s *Store) Close() { closePool(s.pool) }

// Pool is the pool, for the queue's driver.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Schema is the schema of the tables.
func (s *Store) Schema() string { return s.schema }

// PollOnly reports whether there is a pooler, through which nobody is told of
// anything.
func (s *Store) PollOnly() bool { return s.pollOnly }

// Process is the name under which this process holds ranges.
func (s *Store) Process() string { return s.process }

// sql puts the configured schema into a statement.
func (s *Store) sql(statement string) string {
	if s.schema == "syncer" {
		return statement
	}
	return strings.ReplaceAll(statement, "syncer.", pgx.Identifier{s.schema}.Sanitize()+".")
}

// Functions name the schema in their search_path: all of them do, so one tells
// whether the schema was renamed since.
const schemaStateSQL = `
SELECT coalesce(max(m.version_id), 0),
       (SELECT pg_encoding_to_char(d.encoding) FROM pg_database AS d WHERE d.datname = current_database()),
       coalesce((
           SELECT trim('"' FROM split_part(substr(c.setting, length('search_path=') + 1), ',', 1))
           FROM pg_proc AS p
           CROSS JOIN unnest(p.proconfig) AS c (setting)
           WHERE p.pronamespace = $1::text::regnamespace AND p.proname = 'roll_up_presence' AND c.setting LIKE 'search\_path=%'
       ), $1::text)
FROM syncer.syncer_migration AS m
WHERE m.is_applied`

// ErrNoSchema reports that the tables are missing, incomplete, or in a schema that
// was renamed: migrations mend it.
var ErrNoSchema = errors.New("the database has no syncer schema, or an old one")

// ErrEncoding reports that the database does not store text as UTF-8.
var ErrEncoding = errors.New("the database's encoding is not UTF8")

// CheckSchema compares the schema's version with want, the newest migration of
// this program. It returns ErrNoSchema if the schema is missing, older or was
// renamed, and ErrEncoding if the database does not store UTF-8. A newer schema is
// fine, because migrations keep older programs working.
func (s *Store) CheckSchema(ctx context.Context, want int64) error {
	var version int64
	var encoding, bound string
	err := s.pool.QueryRow(ctx, s.sql(schemaStateSQL), s.schema).Scan(&version, &encoding, &bound)
	switch {
	case sqlState(err) == undefinedTable || sqlState(err) == invalidSchemaName:
		version, bound = 0, s.schema
	case err != nil:
		return fmt.Errorf("read the schema's version: %w", s.explainRefusal(ctx, err))
	case encoding != utf8Encoding:
		return fmt.Errorf("%w: it is %s, in which other programs read syncer's text wrongly, or not at all; move to a database made with: CREATE DATABASE syncer ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", ErrEncoding, encoding)
	}
	if version < want {
		return fmt.Errorf("%w: schema %s is at version %d, this program needs %d; run: syncer migrate up", ErrNoSchema, s.schema, version, want)
	}
	if bound != s.schema {
		return fmt.Errorf("%w: schema %s was renamed, and its functions still use schema %s; run: syncer migrate up", ErrNoSchema, s.schema, bound)
	}
	return nil
}

// utf8Encoding is Postgres's name of UTF-8.
const utf8Encoding = "UTF8"

// Ping asks the database for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("ping the database: %w", err)
	}
	return nil
}

const takesWritesSQL = `
SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean`

// ErrReadOnly says that the database is one that nobody can write to.
var ErrReadOnly = errors.New("the database takes no writes")

// CheckWritable says whether rows can be written: ErrReadOnly when not.
func (s *Store) CheckWritable(ctx context.Context) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("look whether the database takes writes: %w", err)
	}
	defer conn.Release()
	var standby, refuses bool
	if err := conn.QueryRow(ctx, takesWritesSQL).Scan(&standby, &refuses); err != nil {
		return fmt.Errorf("look whether the database takes writes: %w", err)
	}
	switch {
	case standby:
		markReadOnly(conn.Conn())
		return fmt.Errorf("%w: it is a standby; [database] url must lead to the primary (postgres://host-a,host-b/app?target_session_attrs=read-write finds it among several)", ErrReadOnly)
	case refuses:
		markReadOnly(conn.Conn())
		return fmt.Errorf("%w: default_transaction_read_only is on, for the server, the database or the role", ErrReadOnly)
	}
	return nil
}

// SQLSTATEs that decide something. Source: PostgreSQL, Appendix A.
const (
	serializationFailure     = "40001"
	deadlockDetected         = "40P01"
	uniqueViolation          = "23505"
	undefinedTable           = "42P01"
	invalidSchemaName        = "3F000"
	insufficientPrivilege    = "42501"
	lockNotAvailable         = "55P03"
	invalidParameterValue    = "22023"
	undefinedObject          = "42704"
	untranslatableCharacter  = "22P05"
	characterNotInRepertoire = "22021"
	queryCanceled            = "57014"
	readOnlyTransaction      = "25006"

	idleInTransactionTimeout = "25P03"
)

// sqlState gives the SQLSTATE of a server's error, "" for any other.
func sqlState(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// inTx runs f in a transaction and, when it lost against another one
// (serialization failure, deadlock), again from the start, three times at most.
func (s *Store) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	var err error
	for range 3 {
		err = pgx.BeginTxFunc(ctx, s.pool, s.begin, f)
		if code := sqlState(err); code != serializationFailure && code != deadlockDetected {
			return err
		}
	}
	return err
}
