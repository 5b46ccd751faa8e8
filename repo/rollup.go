package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const rollUpAppsSQL = `
SELECT app_id
FROM syncer.app
ORDER BY app_id`

const rollUpSQL = `SELECT syncer.roll_up_presence($1, $2, coalesce($3::timestamptz, '-infinity'))`

// RollUp brings the days of users (presence_day) of all apps up to date, in the
// given time zone. Days that began before the given time stay as they are,
// because their history may have been dropped; the zero time means none. It goes
// in steps of a transaction each, so that it may be stopped at any time. What
// fails for one app does not keep it from the others.
func (s *Store) RollUp(ctx context.Context, zone *time.Location, before time.Time) error {
	db := s.Patient()
	rows, err := db.Query(ctx, rollUpAppsSQL)
	if err != nil {
		return fmt.Errorf("list apps: %w", err)
	}
	appIDs, err := pgx.CollectRows(rows, pgx.RowTo[int16])
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
