package web

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

const (
	// freshFor is how long a reading is shown without another one.
	freshFor = 2 * time.Second
	// ReadTimeout bounds a set of statements.
	ReadTimeout = 2 * time.Second
	// maxKept bounds the readings in memory.
	maxKept = 64
)

// reading is what was read for one page.
type reading struct {
	value any // nil: nothing was ever read
	at    time.Time
	// err is why the newest attempt failed, since a time; nil if it did not.
	err   error
	since time.Time
}

// readings keeps what was read for pages, so that all viewers of a page share its
// statements. Safe for concurrent use.
type readings struct {
	metrics *Metrics
	log     zerolog.Logger
	now     func() time.Time

	mu   sync.Mutex
	kept map[string]*entry
}

type entry struct {
	reading
	tried   time.Time     // when the newest attempt ended
	used    time.Time     // when it was last asked for
	pending chan struct{} // is closed when the attempt in flight ends; nil: there is none
}

func newReadings(m *Metrics, log zerolog.Logger) *readings {
	return &readings{metrics: m, log: log, now: time.Now, kept: map[string]*entry{}}
}

// get returns the reading with a key, which read makes if the kept one is older than
// fresh. If several callers want it at once, one of them reads. A failed attempt leaves
// the earlier reading, with the error. The error of get is that of ctx.
func (r *readings) get(ctx context.Context, key string, fresh time.Duration, read func(context.Context) (any, error)) (reading, error) {
	r.mu.Lock()
	e := r.kept[key]
	if e == nil {
		e = r.add(key)
	}
	e.used = r.now()
	if !e.tried.IsZero() && e.used.Sub(e.tried) < fresh && e.pending == nil {
		defer r.mu.Unlock()
		return e.reading, nil
	}
	pending := e.pending
	if pending == nil {
		pending = make(chan struct{})
		e.pending = pending
		// Not the caller's context: others may wait for this reading.
		go r.attempt(context.WithoutCancel(ctx), e, read)
	}
	r.mu.Unlock()
	select {
	case <-pending:
	case <-ctx.Done():
		return reading{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return e.reading, nil
}

// add adds an entry, in place of the one that was not asked for for the longest time if
// there are too many. Call with mu locked.
func (r *readings) add(key string) *entry {
	if len(r.kept) >= maxKept {
		oldest := ""
		for k, e := range r.kept {
			if e.pending == nil && (oldest == "" || e.used.Before(r.kept[oldest].used)) {
				oldest = k
			}
		}
		delete(r.kept, oldest)
	}
	e := &entry{}
	r.kept[key] = e
	return e
}

// attempt reads once.
func (r *readings) attempt(ctx context.Context, e *entry, read func(context.Context) (any, error)) {
	ctx, cancel := context.WithTimeout(ctx, ReadTimeout)
	defer cancel()
	value, err := read(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	e.tried = r.now()
	failedBefore := e.err != nil
	switch {
	case err == nil:
		e.reading = reading{value: value, at: e.tried}
	case failedBefore:
		e.err = err
	default:
		e.err, e.since = err, e.tried
	}
	if r.metrics != nil {
		result := "read"
		if err != nil {
			result = "failed"
		}
		r.metrics.readings.With(prometheus.Labels{"result": result}).Inc()
	}
	if err != nil && !failedBefore {
		r.log.Warn().Err(err).Msg("a page cannot be read from the database; it shows what was read before")
	}
	close(e.pending)
	e.pending = nil
}

// absent is the value of a reading of a page about something that does not exist.
type absent struct{}

// problemOf describes for viewers why a reading failed. It has no address and no name
// of a role: those are in the log.
func problemOf(err error) string {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), ok && pgErr.Code == "57014":
		return "Postgres did not answer within 2 seconds"
	case ok && pgErr.Code == "42501":
		return "the role of this page may not read everything: run syncer grant-reader again (the log names the role)"
	case ok && (pgErr.Code == "42P01" || pgErr.Code == "42703" || pgErr.Code == "3F000"):
		return "the database has no syncer schema, or an old one: run syncer migrate up"
	case ok:
		return "Postgres refuses to answer (SQLSTATE " + pgErr.Code + "; see the log)"
	default:
		return "Postgres cannot be reached (see the log)"
	}
}
