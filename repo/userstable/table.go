package userstable

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/singleflight"

	"syncer/internal/pg"
)

// Config describes a users table. UserID and Where are SQL by design; they run in
// read-only transactions.
type Config struct {
	URL       string   // of the database that holds the table
	Table     []string // name, or schema and name
	KeyColumn string   // column used for keyset pagination: unique, indexed, orderable
	UserID    string   // SQL expression that yields the IM user id
	Where     string   // SQL condition; "": all rows
}

// Table is a users table. Safe for concurrent use.
type Table struct {
	config  Config
	db      *pg.DB
	shared  bool // other tables use db too
	tries   []try
	reading chan struct{}       // has a place for each statement
	keys    *singleflight.Group // readings of key
}

// readsAtOnce bounds the statements that read one users table at the same time. Each
// range needs one now and then, and reading is quick. A table that is locked or slow
// takes no more connections than that from the other tables.
const readsAtOnce = 4

// maxConns bounds the connections to one database, however many users tables it has.
// Their apps may all have a tick at the same time.
const maxConns = 4 * readsAtOnce

// Databases opens users tables. Those in the same database share its connections. The
// zero value is ready to use. Safe for concurrent use.
type Databases struct {
	// Tracer observes statements, if not nil.
	Tracer pgx.QueryTracer

	mu   sync.Mutex
	open map[string]*pg.DB // by URL
	keys singleflight.Group
}

// Open prepares to read a users table, over connections that it shares. It connects when
// first used.
func (d *Databases) Open(ctx context.Context, c Config) (*Table, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	db := d.open[c.URL]
	if db == nil {
		var err error
		if db, err = connect(ctx, c.URL, maxConns, d.Tracer); err != nil {
			return nil, err
		}
		if d.open == nil {
			d.open = make(map[string]*pg.DB)
		}
		d.open[c.URL] = db
	}
	return newTable(c, db, &d.keys, true), nil
}

// Close ends the connections of all tables.
func (d *Databases) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, db := range d.open {
		db.Close()
	}
	d.open = nil
}

// Open prepares to read a users table, over connections of its own. It connects when
// first used. Close the table after use.
func Open(ctx context.Context, c Config) (*Table, error) {
	db, err := connect(ctx, c.URL, maxConns, nil)
	if err != nil {
		return nil, err
	}
	return newTable(c, db, new(singleflight.Group), false), nil
}

func newTable(c Config, db *pg.DB, keys *singleflight.Group, shared bool) *Table {
	tries := []try{tryFor(quick, grace), tryFor(timeout, grace)}
	return &Table{config: c, db: db, shared: shared, tries: tries, reading: make(chan struct{}, readsAtOnce), keys: keys}
}

// connect always prepares for a pooler in between: statements take so long that sending
// their text each time does not matter. Their deadlines are those of their try.
func connect(ctx context.Context, url string, conns int, tracer pgx.QueryTracer) (*pg.DB, error) {
	db, err := pg.New(ctx, pg.Config{URL: url, MaxConns: conns, PollOnly: true, Application: "syncer users", Tracer: tracer})
	if err != nil {
		return nil, fmt.Errorf("read users.url: %w", err)
	}
	return db, nil
}

// Close ends the connections, unless they are shared: then Databases does.
func (t *Table) Close() {
	if !t.shared {
		t.db.Close()
	}
}

// Name returns the table's name as messages show it.
func (t *Table) Name() string { return strings.Join(t.config.Table, ".") }

func (t *Table) name() string { return pgx.Identifier(t.config.Table).Sanitize() }

// column returns the key column, qualified: a bare name in ORDER BY would mean the
// column of the result, which is its text.
func (t *Table) column() string {
	return t.name() + "." + pgx.Identifier{t.config.KeyColumn}.Sanitize()
}

// condition returns what is added to a WHERE for the configured condition.
func (t *Table) condition() string {
	if t.config.Where == "" {
		return ""
	}
	return fmt.Sprintf("\n  AND (\n%s\n)", t.config.Where) // on lines of its own: it may end in a comment
}

// Count returns the number of rows that a sweep of the whole table goes through.
func (t *Table) Count(ctx context.Context) (int64, error) {
	var n int64
	if err := t.readRow(ctx, "SELECT count(*)\n"+t.swept(), nil, &n); err != nil {
		return 0, t.explain("count the rows", err)
	}
	return n, nil
}

// swept returns FROM and WHERE of the rows that a sweep of the whole table goes through.
func (t *Table) swept() string {
	return fmt.Sprintf("FROM %s\nWHERE %s%s", t.name(), t.present(), t.condition())
}

// Size is Count for a caller that cannot wait: if counting takes longer than a quick
// statement may, it returns the planner's estimate, and exact is false.
func (t *Table) Size(ctx context.Context) (n int64, exact bool, err error) {
	read := func(statement string, column any) error {
		return t.readWithin(ctx, t.tries[:1], func(ctx context.Context, tx pgx.Tx) error {
			return tx.QueryRow(ctx, statement).Scan(column)
		})
	}
	if err = read("SELECT count(*)\n"+t.swept(), &n); err == nil {
		return n, true, nil
	}
	var plan []struct {
		Plan struct {
			Rows int64 `json:"Plan Rows"`
		}
	}
	if pg.SQLState(err) == pg.QueryCanceled {
		err = read("EXPLAIN (FORMAT JSON)\nSELECT\n"+t.swept(), &plan)
	}
	if err != nil || len(plan) == 0 {
		return 0, false, t.explain("count the rows", err)
	}
	return plan[0].Plan.Rows, false, nil
}

// Check reads the table as a sweep will, and changes nothing. It returns an Error if the
// table or the key column does not exist, or a page cannot be read.
func (t *Table) Check(ctx context.Context) error {
	_, err := t.Sample(ctx, 1)
	return err
}

// Sample is Check, and returns the first page, of at most limit rows.
func (t *Table) Sample(ctx context.Context, limit int) (Page, error) {
	w := t.Walk("")
	if _, _, err := w.Cut(ctx, nil, 1); err != nil {
		return Page{}, err
	}
	return w.Page(ctx, nil, nil, limit)
}
