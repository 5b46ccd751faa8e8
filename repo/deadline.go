package repo

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A connection can be lost without either end being told: a firewall forgot it,
// the other machine is gone, something on the way has hung up. Whoever waits for
// an answer on it would wait for a quarter of an hour or for ever. So every wait
// is bounded: connecting, a look at whether an idle connection is still good, and
// each statement.
const (
	connectTimeout = 10 * time.Second // of one host, unless the URL has connect_timeout
	pingTimeout    = 5 * time.Second
)

// closePool ends the connections of a pool. It waits for each database to hear of
// it, but not for long: one that is out of reach will find out by itself.
func closePool(pool *pgxpool.Pool) {
	const patience = 2 * time.Second
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		pool.Close()
	}()
	select {
	case <-closed:
	case <-time.After(patience):
	}
}

// deadlines bounds the statements of a pool.
type deadlines struct {
	// within is how long a statement, or a batch of them, may take; 0: as long as it
	// likes.
	within time.Duration
}

// boundWaits bounds all waits of a pool. The tracer is told of its statements too,
// unless it is nil.
func boundWaits(c *pgxpool.Config, within time.Duration, tracer pgx.QueryTracer) {
	if c.ConnConfig.ConnectTimeout == 0 { // the pool would take two minutes
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	c.PingTimeout = pingTimeout
	c.ConnConfig.Tracer = deadlines{within: within}
	if tracer != nil {
		c.ConnConfig.Tracer = multitracer.New(tracer, c.ConnConfig.Tracer)
	}
	// Of a machine that is gone the system tells sooner, also amid a statement that
	// may take long.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	c.ConnConfig.DialFunc = dialer.DialContext
}

// readOnly marks sessions that refused to write. The database was read-only when
// they began, or is a standby by now: they would go on refusing, while others,
// perhaps to another host, do not.
const readOnly = "syncer read-only"

func markReadOnly(conn *pgx.Conn) { conn.PgConn().CustomData()[readOnly] = true }

// dropReadOnly closes such sessions instead of using them again.
func dropReadOnly(c *pgxpool.Config) {
	c.AfterRelease = func(conn *pgx.Conn) bool { return conn.PgConn().CustomData()[readOnly] == nil }
}

// patient marks contexts whose statements may take as long as they like.
type patient struct{}

// patiently is for statements that go through whole tables.
func patiently(ctx context.Context) context.Context { return context.WithValue(ctx, patient{}, true) }

// release holds what ends the bound of a statement.
type release struct{}

func (d deadlines) begin(ctx context.Context) context.Context {
	if d.within == 0 || ctx.Value(patient{}) != nil {
		return ctx
	}
	ctx, cancel := context.WithTimeout(ctx, d.within)
	return context.WithValue(ctx, release{}, cancel)
}

// end ends the bound.
func (deadlines) end(ctx context.Context, conn *pgx.Conn, err error) {
	if cancel, ok := ctx.Value(release{}).(context.CancelFunc); ok {
		cancel()
	}
	if sqlState(err) == readOnlyTransaction {
		markReadOnly(conn)
	}
}

// TraceQueryStart, and those that follow, are called by the driver around all
// that it sends.
func (d deadlines) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return d.begin(ctx)
}

// TraceQueryEnd is called when the rows have been read.
func (d deadlines) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryEndData) {
	d.end(ctx, conn, data.Err)
}

// TraceBatchStart is called once for all statements of a batch.
func (d deadlines) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return d.begin(ctx)
}

// TraceBatchQuery is called for each of them.
func (deadlines) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd is called when all answers have been read.
func (d deadlines) TraceBatchEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchEndData) {
	d.end(ctx, conn, data.Err)
}

// TraceCopyFromStart is called before rows are copied.
func (d deadlines) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	return d.begin(ctx)
}

// TraceCopyFromEnd is called when they have been.
func (d deadlines) TraceCopyFromEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceCopyFromEndData) {
	d.end(ctx, conn, data.Err)
}
