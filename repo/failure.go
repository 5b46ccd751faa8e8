package repo

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
)

// FailureGroup is how many users of an app fail for the same reason.
type FailureGroup struct {
	Code    string
	Message string // of one of them
	Varied  bool   // the message of others differs
	Users   int64
}

const failureGroupsSQL = `
SELECT code, min(message), min(message) <> max(message), count(*)
FROM syncer.user_failure
WHERE app_id = $1 AND kind = $2
GROUP BY code
ORDER BY count(*) DESC, code
LIMIT 10`

// FailureGroups gives the ten most frequent reasons for which users of an app
// fail now.
func (s *Store) FailureGroups(ctx context.Context, appID int16, kind imclient.Kind) ([]FailureGroup, error) {
	rows, err := s.Query(ctx, failureGroupsSQL, appID, kind)
	if err != nil {
		return nil, fmt.Errorf("group failures: %w", err)
	}
	groups, err := pgx.CollectRows(rows, pgx.RowToStructByPos[FailureGroup])
	if err != nil {
		return nil, fmt.Errorf("group failures: %w", err)
	}
	return groups, nil
}
