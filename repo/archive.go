package repo

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// ArchiveRelation is a table whose rows are archived by month.
type ArchiveRelation string

// The tables that are archived.
const (
	ArchivePresence ArchiveRelation = "presence_history"
	ArchiveAccounts ArchiveRelation = "account_history"
	ArchiveRuns     ArchiveRelation = "sync_run"
	ArchiveGaps     ArchiveRelation = "observation_gap"
)

// ArchiveMonth is a month of an app in a table.
type ArchiveMonth struct {
	Relation ArchiveRelation
	AppID    int16
	App      string
	Month    time.Time // its first instant, in UTC
}

// End returns the first instant after the month.
func (m ArchiveMonth) End() time.Time { return m.Month.AddDate(0, 1, 0) }

// Archived is a month that is archived.
type Archived struct {
	ArchiveMonth
	SchemaVersion int
	Rows          int64
	FirstAt       *time.Time
	LastAt        *time.Time
	Bytes         int64
	SHA256        []byte // nil: there were no rows, and there is no file
	ArchivedAt    time.Time
}

// ArchiveDay is what the database has of a day.
type ArchiveDay struct {
	Day     time.Time
	Rows    int64
	Keys    string // sum of the hashes of the rows' keys
	Dropped bool   // rows of the day were dropped, and are in the file alone
}

// ArchivedPresence is a row of presence_history in an archive. The ids of the fields are
// fixed: a column that is added gets the next one.
type ArchivedPresence struct {
	UserID         string            `parquet:"user_id,id(1),dict"`
	PrevState      *string           `parquet:"prev_state,id(2),optional,dict"`
	State          string            `parquet:"state,id(3),dict"`
	Platforms      map[string]string `parquet:"platforms,id(4)" parquet-key:",dict" parquet-value:",dict"`
	NotBefore      *time.Time        `parquet:"not_before,id(5),optional,timestamp(microsecond)"`
	ObservedAt     time.Time         `parquet:"observed_at,id(6),timestamp(microsecond),delta"`
	PrevSince      *time.Time        `parquet:"prev_since,id(7),optional,timestamp(microsecond)"`
	PrevSinceAfter *time.Time        `parquet:"prev_since_after,id(8),optional,timestamp(microsecond)"`
	RunID          int64             `parquet:"run_id,id(9),delta"`
	ToldAt         *time.Time        `parquet:"told_at,id(10),optional,timestamp(microsecond)"`
	PrevToldAt     *time.Time        `parquet:"prev_told_at,id(11),optional,timestamp(microsecond)"`
}

func (r *ArchivedPresence) fields() []any {
	r.Platforms = nil // or the entries of the row before would stay
	return []any{&r.UserID, &r.PrevState, &r.State, &r.Platforms, &r.NotBefore, &r.ObservedAt, &r.PrevSince, &r.PrevSinceAfter, &r.RunID, &r.ToldAt, &r.PrevToldAt}
}

const archivePresenceSQL = `
SELECT user_id, prev_state::text, state::text, platforms, not_before, observed_at, prev_since, prev_since_after, run_id, told_at, prev_told_at
FROM syncer.presence_history
WHERE app_id = $1 AND observed_at >= $2 AND observed_at < $3
ORDER BY observed_at, user_id`

// ArchivedAccount is a row of account_history in an archive.
type ArchivedAccount struct {
	UserID     string     `parquet:"user_id,id(1),dict"`
	PrevStatus *string    `parquet:"prev_status,id(2),optional,dict"`
	Status     string     `parquet:"status,id(3),dict"`
	NotBefore  *time.Time `parquet:"not_before,id(4),optional,timestamp(microsecond)"`
	ObservedAt time.Time  `parquet:"observed_at,id(5),timestamp(microsecond),delta"`
	RunID      int64      `parquet:"run_id,id(6),delta"`
}

func (r *ArchivedAccount) fields() []any {
	return []any{&r.UserID, &r.PrevStatus, &r.Status, &r.NotBefore, &r.ObservedAt, &r.RunID}
}

const archiveAccountsSQL = `
SELECT user_id, prev_status::text, status::text, not_before, observed_at, run_id
FROM syncer.account_history
WHERE app_id = $1 AND observed_at >= $2 AND observed_at < $3
ORDER BY observed_at, user_id`

// ArchivedRun is a row of sync_run in an archive: without errors and keys, which can name
// users.
type ArchivedRun struct {
	RunID         int64      `parquet:"run_id,id(1),delta"`
	Job           string     `parquet:"job,id(2),dict"`
	Kind          string     `parquet:"kind,id(3),dict"`
	Trigger       string     `parquet:"trigger,id(4),dict"`
	Tick          *time.Time `parquet:"tick,id(5),optional,timestamp(microsecond)"`
	Status        string     `parquet:"status,id(6),dict"`
	StartedAt     time.Time  `parquet:"started_at,id(7),timestamp(microsecond),delta"`
	FinishedAt    *time.Time `parquet:"finished_at,id(8),optional,timestamp(microsecond)"`
	ObservedFrom  *time.Time `parquet:"observed_from,id(9),optional,timestamp(microsecond)"`
	ObservedUntil *time.Time `parquet:"observed_until,id(10),optional,timestamp(microsecond)"`
	Listed        bool       `parquet:"listed,id(11)"`
	Complete      bool       `parquet:"complete,id(12)"`
	MaxGapSeconds *float64   `parquet:"max_gap_seconds,id(13),optional"`
	Users         int64      `parquet:"users,id(14)"`
	Changed       int64      `parquet:"changed,id(15)"`
	Failed        int64      `parquet:"failed,id(16)"`
	Removed       int64      `parquet:"removed,id(17)"`
}

func (r *ArchivedRun) fields() []any {
	return []any{&r.RunID, &r.Job, &r.Kind, &r.Trigger, &r.Tick, &r.Status, &r.StartedAt, &r.FinishedAt, &r.ObservedFrom, &r.ObservedUntil,
		&r.Listed, &r.Complete, &r.MaxGapSeconds, &r.Users, &r.Changed, &r.Failed, &r.Removed}
}

const archiveRunsSQL = `
SELECT run_id, job, kind, trigger, tick, status, started_at, finished_at, observed_from, observed_until,
       listed, complete, extract(epoch FROM max_gap)::float8, users, changed, failed, removed
FROM syncer.sync_run
WHERE app_id = $1 AND started_at >= $2 AND started_at < $3 AND status <> 'running'
ORDER BY started_at, run_id`

// ArchivedGap is a row of observation_gap in an archive.
type ArchivedGap struct {
	Kind         string    `parquet:"kind,id(1),dict"`
	StartedAt    time.Time `parquet:"started_at,id(2),timestamp(microsecond)"`
	EndedAt      time.Time `parquet:"ended_at,id(3),timestamp(microsecond)"`
	LastSeenFrom time.Time `parquet:"last_seen_from,id(4),timestamp(microsecond)"`
	NextSeenBy   time.Time `parquet:"next_seen_by,id(5),timestamp(microsecond)"`
	RunID        int64     `parquet:"run_id,id(6)"`
}

func (r *ArchivedGap) fields() []any {
	return []any{&r.Kind, &r.StartedAt, &r.EndedAt, &r.LastSeenFrom, &r.NextSeenBy, &r.RunID}
}

const archiveGapsSQL = `
SELECT kind, started_at, ended_at, last_seen_from, next_seen_by, run_id
FROM syncer.observation_gap
WHERE app_id = $1 AND started_at >= $2 AND started_at < $3
ORDER BY started_at, kind`

// ArchivedApp is a row of app in an archive.
type ArchivedApp struct {
	AppID     int32     `parquet:"app_id,id(1)"`
	Name      string    `parquet:"app,id(2)"`
	Provider  string    `parquet:"provider,id(3)"`
	CreatedAt time.Time `parquet:"created_at,id(4),timestamp(microsecond)"`
}

const archiveAppsSQL = `
SELECT app_id::int, name, provider, created_at
FROM syncer.app
ORDER BY app_id`

// ArchivedApps returns the apps.
func (s *Store) ArchivedApps(ctx context.Context) ([]ArchivedApp, error) {
	apps, err := pg.Collect(ctx, s, pgx.RowToStructByPos[ArchivedApp], archiveAppsSQL)
	if err != nil {
		return nil, fmt.Errorf("read the apps: %w", err)
	}
	return apps, nil
}

// ArchiveReader reads what is to be archived of a month, all from one snapshot of the
// database.
type ArchiveReader struct {
	tx    *pg.Tx
	month ArchiveMonth
}

// ReadMonth calls f with a reader of a month.
func (s *Store) ReadMonth(ctx context.Context, m ArchiveMonth, f func(*ArchiveReader) error) error {
	return s.InSnapshot(ctx, func(tx *pg.Tx) error { return f(&ArchiveReader{tx: tx.Patient(), month: m}) })
}

const presenceDaysSQL = `
SELECT day, rows, keys::text, false
FROM syncer.history_days('syncer.presence_history', $1, $2, $3)
ORDER BY day`

const accountDaysSQL = `
SELECT day, rows, keys::text, false
FROM syncer.history_days('syncer.account_history', $1, $2, $3)
ORDER BY day`

const runDaysSQL = `
SELECT $2::date, count(*), coalesce(sum(hashtextextended(status || coalesce(finished_at::text, ''), run_id)::numeric), 0)::text, false
FROM syncer.sync_run
WHERE app_id = $1 AND started_at >= $2 AND started_at < $3 AND status <> 'running'
HAVING count(*) > 0`

const gapDaysSQL = `
SELECT $2::date, count(*), coalesce(sum(hashtextextended(kind, run_id)::numeric), 0)::text, false
FROM syncer.observation_gap
WHERE app_id = $1 AND started_at >= $2 AND started_at < $3
HAVING count(*) > 0`

// Days returns what the database has of the month, by day; of runs and gaps all as one day.
func (r *ArchiveReader) Days(ctx context.Context) ([]ArchiveDay, error) {
	m := r.month
	switch m.Relation {
	case ArchiveRuns:
		return collectDays(ctx, r.tx, runDaysSQL, m.AppID, m.Month, m.End())
	case ArchiveGaps:
		return collectDays(ctx, r.tx, gapDaysSQL, m.AppID, m.Month, m.End())
	case ArchiveAccounts:
		return collectDays(ctx, r.tx, accountDaysSQL, m.AppID, m.Month, m.End())
	default:
		return collectDays(ctx, r.tx, presenceDaysSQL, m.AppID, m.Month, m.End())
	}
}

const recordedDaysSQL = `
SELECT day, rows, keys::text, dropped
FROM syncer.history_archive_day
WHERE relation = $1 AND app_id = $2 AND day >= $3::date AND day < $4::date
ORDER BY day`

// Recorded returns what the database had when the month was last archived.
func (r *ArchiveReader) Recorded(ctx context.Context) ([]ArchiveDay, error) {
	return collectDays(ctx, r.tx, recordedDaysSQL, string(r.month.Relation), r.month.AppID, r.month.Month, r.month.End())
}

func collectDays(ctx context.Context, tx *pg.Tx, statement string, args ...any) ([]ArchiveDay, error) {
	days, err := pg.Collect(ctx, tx, pgx.RowToStructByPos[ArchiveDay], statement, args...)
	if err != nil {
		return nil, fmt.Errorf("sum up the days: %w", err)
	}
	return days, nil
}

// ArchivedRow is a row of one of the archived tables.
type ArchivedRow interface {
	ArchivedPresence | ArchivedAccount | ArchivedRun | ArchivedGap
}

// Rows calls f with the rows of the month, in the order of their times, as the database
// sends them.
func Rows[R ArchivedRow](ctx context.Context, r *ArchiveReader, f func(*R) error) error {
	var row R
	var statement string
	var fields func() []any
	switch row := any(&row).(type) {
	case *ArchivedPresence:
		statement, fields = archivePresenceSQL, row.fields
	case *ArchivedAccount:
		statement, fields = archiveAccountsSQL, row.fields
	case *ArchivedRun:
		statement, fields = archiveRunsSQL, row.fields
	case *ArchivedGap:
		statement, fields = archiveGapsSQL, row.fields
	}
	rows, err := r.tx.Query(ctx, statement, r.month.AppID, r.month.Month, r.month.End())
	if err != nil {
		return fmt.Errorf("read %s: %w", r.month.Relation, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(fields()...); err != nil {
			return fmt.Errorf("read %s: %w", r.month.Relation, err)
		}
		if err := f(&row); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %s: %w", r.month.Relation, err)
	}
	return nil
}

const historyMonthsSQL = `
SELECT a.app_id, a.name, m.month, h.app_id IS NOT NULL
FROM syncer.app AS a
CROSS JOIN syncer.history_months($1, $2) AS m (month)
LEFT JOIN syncer.history_archive AS h ON h.relation = $1 AND h.app_id = a.app_id AND h.month = m.month
WHERE m.month + interval '1 month' <= $3
ORDER BY m.month, a.app_id`

const runMonthsSQL = `
SELECT DISTINCT a.app_id, a.name, date_trunc('month', u.started_at AT TIME ZONE 'UTC')::date, false
FROM syncer.sync_run AS u
JOIN syncer.app AS a USING (app_id)
WHERE u.started_at < $1
ORDER BY 3, 1`

const gapMonthsSQL = `
SELECT DISTINCT a.app_id, a.name, date_trunc('month', g.started_at AT TIME ZONE 'UTC')::date, false
FROM syncer.observation_gap AS g
JOIN syncer.app AS a USING (app_id)
WHERE g.started_at < $1
ORDER BY 3, 1`

// MonthsToArchive returns the months of a table that ended by closed and are in the database,
// the oldest first. It leaves out months of the histories that are archived already, unless
// again, or unless partitions with rows of them end by dropBefore: then late rows have to be
// looked for.
func (s *Store) MonthsToArchive(ctx context.Context, relation ArchiveRelation, closed, dropBefore time.Time, again bool) ([]ArchiveMonth, error) {
	type month struct {
		AppID    int16
		App      string
		Month    time.Time
		Archived bool
	}
	var months []month
	var err error
	due := make(map[time.Time]bool)
	switch relation {
	case ArchiveRuns:
		months, err = pg.Collect(ctx, s.Patient(), pgx.RowToStructByPos[month], runMonthsSQL, closed)
	case ArchiveGaps:
		months, err = pg.Collect(ctx, s.Patient(), pgx.RowToStructByPos[month], gapMonthsSQL, closed)
	default:
		months, err = pg.Collect(ctx, s.Patient(), pgx.RowToStructByPos[month], historyMonthsSQL, string(relation), closed, closed)
		if err == nil && !again && !dropBefore.IsZero() {
			var dropped []month
			dropped, err = pg.Collect(ctx, s.Patient(), pgx.RowToStructByPos[month], historyMonthsSQL, string(relation), dropBefore, closed)
			for _, m := range dropped {
				due[m.Month] = true
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list the months of %s: %w", relation, s.ExplainRefusal(ctx, err))
	}
	var all []ArchiveMonth
	for _, m := range months {
		if !m.Archived || again || due[m.Month] {
			all = append(all, ArchiveMonth{relation, m.AppID, m.App, m.Month.UTC()})
		}
	}
	return all, nil
}

const archivedSQL = `
SELECT h.relation, h.app_id, a.name, h.month, h.schema_version, h.rows, h.first_at, h.last_at, h.bytes, h.sha256, h.archived_at
FROM syncer.history_archive AS h
JOIN syncer.app AS a USING (app_id)
WHERE $1::text IS NULL OR h.relation = $1 AND h.app_id = $2 AND h.month = $3::date
ORDER BY h.relation, a.name, h.month`

func scanArchived(row pgx.CollectableRow) (a Archived, err error) {
	err = row.Scan(&a.Relation, &a.AppID, &a.App, &a.Month, &a.SchemaVersion, &a.Rows, &a.FirstAt, &a.LastAt, &a.Bytes, &a.SHA256, &a.ArchivedAt)
	a.Month = a.Month.UTC()
	return a, err
}

// Archived returns what is archived, in the order of tables, apps and months.
func (s *Store) Archived(ctx context.Context) ([]Archived, error) {
	all, err := pg.Collect(ctx, s, scanArchived, archivedSQL, nil, 0, time.Time{})
	if err != nil {
		return nil, fmt.Errorf("read what is archived: %w", s.ExplainRefusal(ctx, err))
	}
	return all, nil
}

// FindArchived returns how a month is archived. It reports false if it is not.
func (s *Store) FindArchived(ctx context.Context, m ArchiveMonth) (a Archived, ok bool, err error) {
	all, err := pg.Collect(ctx, s, scanArchived, archivedSQL, string(m.Relation), m.AppID, m.Month)
	if err != nil {
		return a, false, fmt.Errorf("read how a month is archived: %w", s.ExplainRefusal(ctx, err))
	}
	if len(all) == 0 {
		return a, false, nil
	}
	return all[0], true, nil
}

const recordArchiveSQL = `
INSERT INTO syncer.history_archive (relation, app_id, month, schema_version, rows, first_at, last_at, bytes, sha256, archived_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (relation, app_id, month) DO UPDATE
SET schema_version = excluded.schema_version, rows = excluded.rows, first_at = excluded.first_at, last_at = excluded.last_at,
    bytes = excluded.bytes, sha256 = excluded.sha256, archived_at = excluded.archived_at`

// A day without rows is recorded only if rows of it were dropped.
const recordDaysSQL = `
WITH live AS (
    SELECT day, rows, keys
    FROM unnest($5::date[], $6::bigint[], $7::numeric[]) AS d (day, rows, keys)
), gone AS (
    UPDATE syncer.history_archive_day AS a
    SET rows = 0, keys = 0
    WHERE a.relation = $1 AND a.app_id = $2 AND a.day >= $3::date AND a.day < $4::date
      AND NOT EXISTS (SELECT FROM live AS l WHERE l.day = a.day)
)
INSERT INTO syncer.history_archive_day (relation, app_id, day, rows, keys)
SELECT $1, $2, day, rows, keys
FROM live
ON CONFLICT (relation, app_id, day) DO UPDATE
SET rows = excluded.rows, keys = excluded.keys`

// RecordArchive records that a month is archived, with what the database had of it.
func (s *Store) RecordArchive(ctx context.Context, a Archived, live []ArchiveDay) error {
	days, rows, keys := make([]time.Time, len(live)), make([]int64, len(live)), make([]string, len(live))
	for i, d := range live {
		days[i], rows[i], keys[i] = d.Day, d.Rows, d.Keys
	}
	err := s.InTx(ctx, func(tx *pg.Tx) error {
		_, err := tx.Exec(ctx, recordArchiveSQL, string(a.Relation), a.AppID, a.Month, a.SchemaVersion, a.Rows, a.FirstAt, a.LastAt, a.Bytes, a.SHA256, a.ArchivedAt)
		if err == nil {
			_, err = tx.Exec(ctx, recordDaysSQL, string(a.Relation), a.AppID, a.Month, a.End(), days, rows, keys)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("record the archive of %s: %w", a.Relation, s.ExplainRefusal(ctx, err))
	}
	return nil
}

const dropArchivedSQL = `SELECT syncer.drop_archived_history_partitions($1)`

// DropArchivedPartitions drops the partitions that end at or before a time and are archived
// as they are, and archived days of the default partitions. It returns the number dropped,
// and ErrHistoryInUse if a history is locked.
func (s *Store) DropArchivedPartitions(ctx context.Context, before time.Time) (int, error) {
	dropped, err := s.changePartitions(ctx, dropArchivedSQL, before)
	if err != nil {
		return dropped, fmt.Errorf("drop archived history partitions: %w", err)
	}
	return dropped, nil
}
