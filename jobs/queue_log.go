package jobs

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/rs/zerolog"
)

// queueLog logs the errors of the queue's client. While the database is away each
// of its parts logs one every few seconds, for each queue. What becomes of a job is
// logged by its worker, once.
type queueLog struct {
	warnings *warnings
	attrs    []slog.Attr
}

// Enabled reports whether records of a level are logged.
func (q *queueLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }

// Handle logs a record as a warning.
func (q *queueLog) Handle(_ context.Context, record slog.Record) error {
	attrs := slices.Clone(q.attrs)
	record.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	var cause error
	attrs = slices.DeleteFunc(attrs, func(a slog.Attr) bool {
		if a.Key != "err" && a.Key != "error" {
			return false
		}
		var ok bool
		if cause, ok = a.Value.Any().(error); !ok {
			cause = errors.New(a.Value.String())
		}
		return true
	})
	fields := func(event *zerolog.Event) {
		for _, a := range attrs {
			event.Any(a.Key, a.Value.Resolve().Any())
		}
	}
	message := "queue: " + record.Message
	if cause == nil {
		q.warnings.warnOf(warningKey{message: message}, fields)
		return nil
	}
	q.warnings.warn("", message, cause, fields)
	return nil
}

// WithAttrs adds attributes to all records.
func (q *queueLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &queueLog{warnings: q.warnings, attrs: append(slices.Clone(q.attrs), attrs...)}
}

// WithGroup is not needed: the queue makes no groups.
func (q *queueLog) WithGroup(string) slog.Handler { return q }
