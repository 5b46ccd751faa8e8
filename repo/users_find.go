package repo

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
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
	// The first comparison may use an index, the second one is exact in any collation.
	condition := fmt.Sprintf("(\n%[1]s\n)::text = $1\n  AND (\n%[1]s\n)::text COLLATE \"C\" = $1", u.config.UserID)
	if !outside && u.config.Where != "" {
		condition = fmt.Sprintf("(\n%s\n)\n  AND %s", u.config.Where, condition)
	}
	key, err := u.key(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := u.find(ctx, key, condition, userID)
	if code := pg.SQLState(err); code == pg.CharacterNotInRepertoire || code == pg.UntranslatableCharacter { // no row has it
		return nil, nil
	}
	return rows, err
}

// FindKey gives the row with that key, within the condition or not; none when the
// text is no key at all.
func (u *Users) FindKey(ctx context.Context, text string) ([]UserRow, error) {
	key, err := u.key(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := u.find(ctx, key, fmt.Sprintf("%s %s %s", key.column, key.equal, key.value("$1::text")), text)
	if strings.HasPrefix(pg.SQLState(err), "22") { // the text does not fit the type
		return nil, nil
	}
	return rows, err
}

// find returns some of the rows for which a condition about a text is true.
func (u *Users) find(ctx context.Context, key *userKey, condition, text string) ([]UserRow, error) {
	within := "true"
	if u.config.Where != "" {
		within = fmt.Sprintf("(\n%s\n) IS TRUE", u.config.Where)
	}
	statement := fmt.Sprintf("SELECT %s, %s, within\nFROM (\nSELECT %s AS k, (\n%s\n)::text AS id, %s AS within\nFROM %s\nWHERE %s\nORDER BY 3 DESC, %s\nLIMIT %d\n) AS r",
		key.asIs(beginning("k::text", shownKey+1)), key.asIs(beginning("id", longestID)),
		key.column, u.config.UserID, within, u.table(), condition, key.sort, findLimit)
	var found []foundRow
	err := u.read(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, statement, text)
		if err == nil {
			found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[foundRow])
		}
		return err
	})
	if err != nil {
		return nil, u.explain("look up a user", err)
	}
	var raw [][]byte
	for _, row := range found {
		raw = append(raw, row.Key, row.UserID)
	}
	texts, err := u.convert(ctx, key.encoding, raw)
	if err != nil {
		return nil, u.explain("look up a user", err)
	}
	rows := make([]UserRow, len(found))
	for i, row := range found {
		rows[i] = UserRow{Key: shownText(row.Key, texts[2*i], shownKey), UserID: shownText(row.UserID, texts[2*i+1], longestID), Within: row.Within}
	}
	return rows, nil
}

// foundRow is a row whose key and id are as they are stored.
type foundRow struct {
	Key, UserID []byte // nil: NULL
	Within      bool
}

// shownText returns text, or raw escaped if it has none.
func shownText(raw []byte, text *string, characters int) *string {
	switch {
	case raw == nil:
		return nil
	case text != nil:
		raw = []byte(*text)
	}
	return new(shown(raw, characters))
}
