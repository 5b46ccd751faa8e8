package repo

import (
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
)

const loadAccountsSQL = `
SELECT user_id, status::text, changed_at, asked_at
FROM syncer.account_snapshot
WHERE app_id = $1 AND user_id BETWEEN $2 AND $3
ORDER BY user_id
LIMIT $4`

// See findPresenceSQL.
const findAccountsSQL = `
SELECT s.user_id, s.status::text, s.changed_at, s.asked_at
FROM unnest($2::text[]) AS asked (user_id)
CROSS JOIN LATERAL (
    SELECT *
    FROM syncer.account_snapshot
    WHERE app_id = $1 AND user_id = asked.user_id
    LIMIT 1
) AS s
ORDER BY s.user_id`

// See savePresenceSQL.
const saveAccountsSQL = `
WITH changed AS (
    SELECT c.user_id, c.prev_changed_at, c.not_before, c.asked_at, c.observed_at,
           c.status::syncer.account_status AS status, c.prev_status::syncer.account_status AS prev_status
    FROM unnest($3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[],
                $8::text[], $9::text[])
        AS c (user_id, prev_changed_at, not_before, asked_at, observed_at, status, prev_status)
), updated AS (
    UPDATE syncer.account_snapshot AS s
    SET status = c.status, changed_at = c.observed_at, asked_at = c.asked_at, run_id = $2
    FROM changed AS c
    WHERE s.app_id = $1 AND s.user_id = c.user_id
      AND s.changed_at = c.prev_changed_at AND s.changed_at <= c.asked_at AND s.changed_at < c.observed_at
    RETURNING c.user_id, c.prev_status, c.status, c.not_before, c.observed_at
), inserted AS (
    INSERT INTO syncer.account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id)
    SELECT $1, user_id, status, observed_at, asked_at, $2
    FROM changed
    WHERE prev_changed_at IS NULL
    ORDER BY user_id
    ON CONFLICT DO NOTHING
    RETURNING user_id, status, changed_at
), recorded AS (
    INSERT INTO syncer.account_history (app_id, user_id, prev_status, status, not_before, observed_at, run_id)
    SELECT $1, user_id, prev_status, status, not_before, observed_at, $2
    FROM (
        SELECT user_id, prev_status, status, not_before, observed_at FROM updated
        UNION ALL
        SELECT user_id, NULL, status, NULL, changed_at FROM inserted
    ) AS written
    ORDER BY user_id
)
SELECT (SELECT count(*) FROM updated) + (SELECT count(*) FROM inserted)`

// See lapsePresenceSQL.
const lapseAccountsSQL = `
WITH gone AS (
    DELETE FROM syncer.account_snapshot AS s
    USING ` + lapsesSQL + `
    WHERE s.app_id = $1 AND s.user_id = l.user_id
      AND s.changed_at = l.prev_changed_at AND s.changed_at <= l.asked_at AND s.changed_at < l.observed_at
      AND EXISTS (SELECT FROM syncer.user_failure AS f WHERE f.app_id = $1 AND f.kind = 'accounts' AND f.user_id = l.user_id)
    RETURNING s.user_id, s.status AS prev_status, 'rejected'::syncer.account_status AS status, l.not_before, l.observed_at
)` + leaveAccountsSQL

const removeAccountsSQL = `
WITH gone AS (
    DELETE FROM syncer.account_snapshot AS s
    WHERE ` + leftUsersTableSQL + `
    RETURNING s.user_id, s.status AS prev_status,
              'removed'::syncer.account_status AS status, ` + lastKnownSQL + ` AS not_before, $6::timestamptz AS observed_at
)` + leaveAccountsSQL

// See leaversPresenceSQL.
const leaversAccountsSQL = `
SELECT gone.users, greatest(gone.users, least(snapshots.users, ` + prevKnownSQL + `))
FROM (
    SELECT count(*) AS users
    FROM syncer.account_snapshot
    WHERE app_id = $1
) AS snapshots
CROSS JOIN (
    SELECT count(*) AS users
    FROM syncer.account_snapshot AS s
    WHERE ` + leftUsersTableSQL + `
) AS gone`

// See countPresenceSQL.
const countAccountsSQL = `
SELECT CASE WHEN count(*) = count(u.user_id) THEN count(*) END, (coalesce(sum(u.hash), 0) % 4611686018427387904)::bigint
FROM syncer.account_snapshot AS s
LEFT JOIN pg_temp.sync_users AS u USING (user_id)
WHERE s.app_id = $1`

const leaveAccountsSQL = `
INSERT INTO syncer.account_history (app_id, user_id, prev_status, status, not_before, observed_at, run_id)
SELECT $1, user_id, prev_status, status, not_before, observed_at, $2
FROM gone
ORDER BY user_id`

// Accounts returns access to the account snapshots and their history.
func (s *Store) Accounts() *Values[imclient.AccountStatus] {
	return &Values[imclient.AccountStatus]{
		store:      s,
		kind:       imclient.KindAccounts,
		loadSQL:    loadAccountsSQL,
		findSQL:    findAccountsSQL,
		saveSQL:    saveAccountsSQL,
		lapseSQL:   lapseAccountsSQL,
		removeSQL:  removeAccountsSQL,
		leaversSQL: leaversAccountsSQL,
		countSQL:   countAccountsSQL,
		scanner:    accountScanner,
		columns:    accountColumns,
		firstSeen: []copyTo[imclient.AccountStatus]{
			{"account_snapshot", []string{"status", "changed_at", "asked_at"}, func(c *Change[imclient.AccountStatus]) []any {
				return []any{c.Value.String(), c.ObservedAt, earlier(c.AskedAt, c.ObservedAt)}
			}},
			{"account_history", []string{"status", "observed_at"}, func(c *Change[imclient.AccountStatus]) []any {
				return []any{c.Value.String(), c.ObservedAt}
			}},
		},
	}
}

func accountScanner() func(pgx.Rows) (pg.RawText, Snapshot[imclient.AccountStatus], error) {
	var id, status pg.RawText
	var s Snapshot[imclient.AccountStatus]
	columns := []any{&id, &status, &s.ChangedAt, &s.AskedAt}
	return func(rows pgx.Rows) (pg.RawText, Snapshot[imclient.AccountStatus], error) {
		err := rows.Scan(columns...)
		if err == nil {
			s.Value, err = imclient.ParseAccountStatus(string(status))
		}
		if err != nil {
			return nil, s, fmt.Errorf("account of user %s: %w", id, err)
		}
		return id, s, nil
	}
}

// accountColumns are $8 status, $9 prev_status.
func accountColumns(changes []Change[imclient.AccountStatus]) []any {
	statuses, prevStatuses := make([]string, len(changes)), make([]*string, len(changes))
	for i := range changes {
		c := &changes[i]
		statuses[i] = c.Value.String()
		if c.Prev != nil {
			prev := c.Prev.Value.String()
			prevStatuses[i] = &prev
		}
	}
	return []any{statuses, prevStatuses}
}
