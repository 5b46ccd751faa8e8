package repo

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
)

// FailureGroup is the number of users of an app who fail with the same code.
type FailureGroup struct {
	Code    string
	Message string // of one of them
	Varied  bool   // messages differ
	Users   int64
}

const failureGroupsSQL = `
SELECT code, min(message), min(message) <> max(message), count(*)
FROM syncer.user_failure
WHERE app_id = $1 AND kind = $2
GROUP BY code
ORDER BY count(*) DESC, code
LIMIT 10`

// FailureGroups returns the ten most frequent codes with which users of an app fail now.
func (s *Store) FailureGroups(ctx context.Context, appID int16, kind imclient.Kind) ([]FailureGroup, error) {
	groups, err := pg.Collect(ctx, s, pgx.RowToStructByPos[FailureGroup], failureGroupsSQL, appID, kind)
	if err != nil {
		return nil, fmt.Errorf("group failures: %w", err)
	}
	return groups, nil
}
