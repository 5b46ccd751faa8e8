// Package reports reads what the commands report, runs and explain show, all of one
// command from one snapshot of the database, and never writes. It shares nothing with
// package repo, which collects the data, but the connection of internal/pg; package
// internal/report formats what it returns.
package reports

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Span limits a report. Days are local to Location.
type Span struct {
	App      *string   // nil: every app
	From, To time.Time // To is not part of it
	Location *time.Location
}

// firstDay returns the local day on which the span begins.
func (s Span) firstDay() string { return s.From.In(s.Location).Format(time.DateOnly) }

// lastDay returns the last local day of the span that can have data.
func (r *Reader) lastDay(s Span) string {
	end := s.To.Add(-time.Microsecond)
	if end.After(r.AsOf) {
		end = r.AsOf
	}
	return end.In(s.Location).Format(time.DateOnly)
}

// Reader reads reports, all from one snapshot of the database.
type Reader struct {
	AsOf time.Time // the present of that snapshot
	tx   *pg.Tx
}

// Compiling the plans of the views takes two seconds, on the smallest history too,
// because the planner cannot know how few rows there will be. And a report sorts millions
// of sessions, for which the default work_mem of 4 MB is small.
const settingsSQL = `SELECT set_config('jit', 'off', true), set_config('work_mem', '64MB', true)`

const asOfSQL = `SELECT syncer.as_of()`

// Read runs f with a Reader on one snapshot of the database. If the role lacks a
// privilege, the error names the command that grants it.
func Read(ctx context.Context, db *pg.DB, f func(*Reader) error) error {
	err := db.InSnapshot(ctx, func(tx *pg.Tx) error {
		if _, err := tx.Exec(ctx, settingsSQL); err != nil {
			return fmt.Errorf("prepare to read: %w", err)
		}
		r := &Reader{tx: tx}
		if err := tx.QueryRow(ctx, asOfSQL).Scan(&r.AsOf); err != nil {
			return fmt.Errorf("read the time: %w", err)
		}
		return f(r)
	})
	return db.ExplainRefusal(ctx, err)
}

// read returns the rows of a statement. what names them in errors.
func read[T any](ctx context.Context, r *Reader, what, statement string, args ...any) ([]T, error) {
	all, err := pg.Collect(ctx, r.tx, pgx.RowToStructByPos[T], statement, args...)
	switch {
	case pg.SQLState(err) == pg.InvalidParameterValue:
		return nil, fmt.Errorf("read %s: %w (does the database know the time zone?)", what, err)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return all, nil
}

// readOne returns the first row of a statement, nil if there is none.
func readOne[T any](ctx context.Context, r *Reader, what, statement string, args ...any) (*T, error) {
	rows, err := read[T](ctx, r, what, statement, args...)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return &rows[0], nil
}

const appNamesSQL = `
SELECT name
FROM syncer.app
ORDER BY name`

// AppNames returns the names of the apps that anything was ever collected of.
func (r *Reader) AppNames(ctx context.Context) ([]string, error) {
	names, err := pg.Collect(ctx, r.tx, pgx.RowTo[string], appNamesSQL)
	if err != nil {
		return nil, fmt.Errorf("read the apps: %w", err)
	}
	return names, nil
}
