package userstable

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Row is a row of a users table.
type Row struct {
	Key    *string `json:"key"`          // at most 100 characters; nil: NULL, so no sweep reaches the row
	UserID *string `json:"user_id"`      // at most 256 characters; nil: NULL
	Within bool    `json:"within_where"` // the condition is true of it
}

// findLimit is how many rows with the same id are returned.
const findLimit = 5

// FindUser returns up to five rows with a user id, if outside also those of which the
// condition is not true. Without an index on the expression it reads the whole table.
func (t *Table) FindUser(ctx context.Context, userID string, outside bool) ([]Row, error) {
	// The first comparison may use an index, the second one is exact in any collation.
	condition := fmt.Sprintf("(\n%[1]s\n)::text = $1\n  AND (\n%[1]s\n)::text COLLATE \"C\" = $1", t.config.UserID)
	if !outside && t.config.Where != "" {
		condition = fmt.Sprintf("(\n%s\n)\n  AND %s", t.config.Where, condition)
	}
	key, err := t.key(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := t.find(ctx, key, condition, userID)
	if code := pg.SQLState(err); code == pg.CharacterNotInRepertoire || code == pg.UntranslatableCharacter { // no row has it
		return nil, nil
	}
	return rows, err
}

// FindKey returns the row with a key, whether the condition is true of it or not. It
// returns none if the text is not of the key's type.
func (t *Table) FindKey(ctx context.Context, text string) ([]Row, error) {
	key, err := t.key(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := t.find(ctx, key, fmt.Sprintf("%s %s %s", key.column, key.equal, key.value("$1::text")), text)
	if strings.HasPrefix(pg.SQLState(err), "22") { // the text does not fit the type
		return nil, nil
	}
	return rows, err
}

// find returns some of the rows of which a condition about a text is true.
func (t *Table) find(ctx context.Context, k *key, condition, text string) ([]Row, error) {
	within := "true"
	if t.config.Where != "" {
		within = fmt.Sprintf("(\n%s\n) IS TRUE", t.config.Where)
	}
	statement := fmt.Sprintf("SELECT %s, %s, within\nFROM (\nSELECT %s AS k, (\n%s\n)::text AS id, %s AS within\nFROM %s\nWHERE %s\nORDER BY 3 DESC, %s\nLIMIT %d\n) AS r",
		k.asIs(beginning("k::text", shownKey+1)), k.asIs(beginning("id", longestID)),
		k.column, t.config.UserID, within, t.name(), condition, k.sort, findLimit)
	var found []foundRow
	err := t.readRows(ctx, statement, []any{text}, func(rows pgx.Rows) (err error) {
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[foundRow])
		return err
	})
	if err != nil {
		return nil, t.explain("look up a user", err)
	}
	var raw [][]byte
	for _, row := range found {
		raw = append(raw, row.Key, row.UserID)
	}
	texts, err := t.convert(ctx, k.encoding, raw)
	if err != nil {
		return nil, t.explain("look up a user", err)
	}
	rows := make([]Row, len(found))
	for i, row := range found {
		rows[i] = Row{Key: shownText(row.Key, texts[2*i], shownKey), UserID: shownText(row.UserID, texts[2*i+1], longestID), Within: row.Within}
	}
	return rows, nil
}

// foundRow is a row with key and id as they are stored.
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
