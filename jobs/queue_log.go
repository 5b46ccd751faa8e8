package jobs

import (
	"context"
	"log/slog"
	"slices"

	"github.com/rs/zerolog"
)

// queueLog logs, at debug level, the errors of the queue's client. While the database
// is away each of its parts has one every few seconds, for each queue. An outage, work
// that stalls and what becomes of a job are logged by the engine.
type queueLog struct {
	log   zerolog.Logger
	attrs []slog.Attr
}

// Enabled reports whether records of a level are logged.
func (q *queueLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

// Handle logs a record.
func (q *queueLog) Handle(_ context.Context, record slog.Record) error {
	event := q.log.Debug()
	add := func(a slog.Attr) bool {
		if a.Key == "err" {
			a.Key = "error"
		}
		if err, ok := a.Value.Any().(error); ok {
			event.AnErr(a.Key, err)
		} else {
			event.Any(a.Key, a.Value.Resolve().Any())
		}
		return true
	}
	for _, a := range q.attrs {
		add(a)
	}
	record.Attrs(add)
	event.Msg("queue: " + record.Message)
	return nil
}

// WithAttrs adds attributes to all records.
func (q *queueLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &queueLog{log: q.log, attrs: append(slices.Clone(q.attrs), attrs...)}
}

// WithGroup is not needed: the queue makes no groups.
func (q *queueLog) WithGroup(string) slog.Handler { return q }
