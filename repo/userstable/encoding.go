package userstable

import (
	"bytes"
	"context"
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// noEncoding is the encoding of a database in which text is bytes without a meaning.
const noEncoding = "SQL_ASCII"

// bytesCursor begins a cursor that holds a key in the database's encoding, as
// hexadecimal digits. It is for keys that are not ASCII in a database that is not UTF-8,
// because not all encodings can be converted to UTF-8 and back without loss.
const bytesCursor = "bytes:"

// keyCursor returns the cursor for a key.
func keyCursor(key []byte, encoding string) string {
	plain := isASCII(key) || encoding == pg.UTF8 && utf8.Valid(key)
	if plain && !bytes.HasPrefix(key, []byte(bytesCursor)) {
		return string(key)
	}
	return bytesCursor + hex.EncodeToString(key)
}

// cursorBytes returns the key that a cursor holds as bytes. It reports whether there is
// one.
func cursorBytes(cursor string) (key []byte, ok bool) {
	digits, ok := strings.CutPrefix(cursor, bytesCursor)
	if !ok {
		return nil, false
	}
	key, err := hex.DecodeString(digits)
	return key, err == nil
}

func isASCII(text []byte) bool {
	return !bytes.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

const convertSQL = `
SELECT pg_catalog.convert(raw, $2, 'UTF8')
FROM ROWS FROM (pg_catalog.unnest($1::bytea[])) WITH ORDINALITY AS r (raw, n)
ORDER BY n`

// convert converts bytes from a database's encoding to text. It returns nil for those
// that are not text. Postgres refuses all of them if it cannot convert one, so convert
// halves them until that one is alone.
func (t *Table) convert(ctx context.Context, encoding string, raw [][]byte) ([]*string, error) {
	texts := make([]*string, len(raw))
	if encoding == pg.UTF8 || encoding == noEncoding {
		for i, b := range raw {
			if utf8.Valid(b) {
				texts[i] = new(string(b))
			}
		}
		return texts, nil
	}
	if len(raw) == 0 {
		return nil, nil
	}
	err := t.readRows(ctx, convertSQL, []any{raw, encoding}, func(rows pgx.Rows) (err error) {
		texts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*string, error) {
			var text []byte
			err := row.Scan(&text)
			return new(string(text)), err
		})
		return err
	})
	switch code := pg.SQLState(err); {
	case code != pg.CharacterNotInRepertoire && code != pg.UntranslatableCharacter:
		return texts, err
	case len(raw) == 1:
		return []*string{nil}, nil
	}
	half := len(raw) / 2
	first, err := t.convert(ctx, encoding, raw[:half])
	if err != nil {
		return nil, err
	}
	second, err := t.convert(ctx, encoding, raw[half:])
	return append(first, second...), err
}
