package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

const rollUpAppsSQL = `
SELECT app_id
FROM syncer.app
ORDER BY app_id`

const rollUpSQL = `SELECT syncer.roll_up_presence($1, $2, coalesce($3::timestamptz, '-infinity'))`

// RollUp brings the days of users (presence_day) of all apps up to date, in a time zone.
// Days that began before a time stay as they are, because their history may have been
// dropped; zero means none. Each step is a transaction, so that RollUp can stop at any time.
// After an error in one app it continues with the others, and returns all errors.
func (s *Store) RollUp(ctx context.Context, zone *time.Location, before time.Time) error {
	db := s.Patient()
	appIDs, err := pg.Collect(ctx, db, pgx.RowTo[int16], rollUpAppsSQL)
	if err != nil {
		return fmt.Errorf("list apps: %w", err)
	}
	var kept *time.Time
	if !before.IsZero() {
		kept = &before
	}
	var failed []error
	for _, appID := range appIDs {
		for more := true; more; {
			if err := db.QueryRow(ctx, rollUpSQL, appID, zone.String(), kept).Scan(&more); err != nil {
				failed = append(failed, fmt.Errorf("roll up the presence of app %d: %w", appID, err))
				break
			}
		}
	}
	return errors.Join(failed...)
}
