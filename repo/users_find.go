package repo

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// UserRow is a row of a users table.
type UserRow struct {
	Key    *string `json:"key"` // nil: NULL, and no sweep comes to it
	UserID *string `json:"user_id"`
	Within bool    `json:"within_where"` // the condition takes it
}

// findLimit is how many rows are given that have the same id.
const findLimit = 5

// FindUser gives some rows with that user id: within the condition, or also
// outside of it. Without an index on the expression it reads the whole table.
func (u *Users) FindUser(ctx context.Context, userID string, outside bool) ([]UserRow, error) {
	condition := fmt.Sprintf("(\n%s\n)::text = $1", u.config.UserID)
	if !outside && u.config.Where != "" {
		condition = fmt.Sprintf("(\n%s\n)\n  AND %s", u.config.Where, condition)
	}
	return u.find(ctx, condition, userID)
}

// FindKey gives the row with that key, within the condition or not; none when the
// text is no key at all.
func (u *Users) FindKey(ctx context.Context, key string) ([]UserRow, error) {
	keyType, err := u.key(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := u.find(ctx, fmt.Sprintf("%s = CAST($1::text AS %s)", u.column(), keyType), key)
	if strings.HasPrefix(sqlState(err), "22") { // the text does not fit the type
		return nil, nil
	}
	return rows, err
}

func (u *Users) find(ctx context.Context, condition, text string) ([]UserRow, error) {
	within := "true"
	if u.config.Where != "" {
		within = fmt.Sprintf("(\n%s\n) IS TRUE", u.config.Where)
	}
	statement := fmt.Sprintf("SELECT %s::text, (\n%s\n)::text, %s\nFROM %s\nWHERE %s\nORDER BY 3 DESC, %s\nLIMIT %d",
		u.column(), u.config.UserID, within, u.table(), condition, u.column(), findLimit)
	var found []UserRow
	err := u.read(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, statement, text)
		if err == nil {
			found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[UserRow])
		}
		return err
	})
	if err != nil {
		return nil, u.explain("look up a user", err)
	}
	return found, nil
}
