package pg

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Session is a session of the database, as pg_stat_activity shows it to this role.
type Session struct {
	PID         int32
	User        string
	Application string
	State       string     // "" if this role may not see it
	Since       *time.Time // start of its transaction; nil: there is none, or this role may not see it
}

const sessionColumns = `a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(a.state, ''), a.xact_start`

// String describes the session, with the statement that ends what it does.
func (s Session) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "session %d (user %q, application %q", s.PID, s.User, s.Application)
	if s.State != "" {
		fmt.Fprintf(&b, ", %s", s.State)
	}
	if s.Since != nil {
		fmt.Fprintf(&b, ", transaction begun %s", s.Since.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	end := "pg_terminate_backend" // it executes no statement that could be cancelled
	if s.State == "active" {
		end = "pg_cancel_backend"
	}
	fmt.Fprintf(&b, "); to end it: SELECT %s(%d);", end, s.PID)
	return b.String()
}

// Describe describes up to three sessions, and the number of the others.
func Describe(sessions []Session) string {
	if len(sessions) == 0 {
		return "a session that is gone by now, or a prepared transaction (SELECT * FROM pg_prepared_xacts;)"
	}
	const most = 3
	lines := make([]string, min(len(sessions), most))
	for i := range lines {
		lines[i] = sessions[i].String()
	}
	if more := len(sessions) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, " ")
}

const blockingSQL = `
SELECT DISTINCT ` + sessionColumns + `
FROM pg_stat_activity AS w
CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b (pid)
JOIN pg_stat_activity AS a ON a.pid = b.pid
WHERE w.datname = current_database() AND w.application_name = $1 AND a.application_name <> $1
ORDER BY a.xact_start`

// Blocking returns the sessions that hold locks which sessions of an application wait for,
// the oldest transaction first.
func Blocking(ctx context.Context, q Querier, application string) ([]Session, error) {
	return sessions(ctx, q, blockingSQL, application)
}

// The start of a transaction that the role may not see is NULL. pg_partition_tree would
// wait for the locks in question.
const usingSQL = `
WITH tables AS (
    SELECT unnest($1::text[]::regclass[])::oid AS oid
)
SELECT DISTINCT ` + sessionColumns + `
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation IN (SELECT oid FROM tables UNION ALL SELECT i.inhrelid FROM pg_inherits AS i JOIN tables AS t ON t.oid = i.inhparent)
  AND l.granted AND l.pid <> pg_backend_pid()
  AND (a.xact_start IS NULL OR a.xact_start < clock_timestamp() - $2::interval)
ORDER BY a.xact_start NULLS FIRST`

// Using returns the sessions that hold any lock on one of some partitioned tables, or on a
// partition of them, in a transaction older than olderThan, the oldest first.
func Using(ctx context.Context, q Querier, tables []string, olderThan time.Duration) ([]Session, error) {
	return sessions(ctx, q, usingSQL, tables, olderThan)
}

const holdingAdvisorySQL = `
SELECT ` + sessionColumns + `
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) + l.objid::bigint = $1 AND l.objsubid = 1`

// HoldingAdvisory returns the sessions that hold an advisory lock.
func HoldingAdvisory(ctx context.Context, q Querier, key int64) ([]Session, error) {
	return sessions(ctx, q, holdingAdvisorySQL, key)
}

func sessions(ctx context.Context, q Querier, statement string, args ...any) ([]Session, error) {
	found, err := Collect(ctx, q, pgx.RowToStructByPos[Session], statement, args...)
	if err != nil {
		return nil, fmt.Errorf("look for the sessions that hold a lock: %w", err)
	}
	return found, nil
}
