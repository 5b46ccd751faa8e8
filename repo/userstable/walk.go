package userstable

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Walk pages through a users table in the order of its key. Not safe for concurrent use.
type Walk struct {
	table *Table
	order string // that keys must have; "": not known yet
	key   *key   // nil: to be read
}

// Walk returns a walk. order is the Order of the walk that the keys come from, "" if
// there is none.
func (t *Table) Walk(order string) *Walk { return &Walk{table: t, order: order} }

// Order returns the name of the order of the keys, "" before the first read. A key is a
// position in this order only.
func (w *Walk) Order() string { return w.order }

// learn reads how keys are ordered, unless that is known. If the order is not the
// walk's, it returns an Error: the keys at which the run was cut mean nothing in it.
func (w *Walk) learn(ctx context.Context) error {
	if w.key != nil {
		return nil
	}
	key, err := w.table.key(ctx)
	if err != nil {
		return err
	}
	if w.order != "" && key.order != w.order {
		return w.table.mistake(fmt.Sprintf("column %s has been altered meanwhile: it was ordered as %s, and is as %s now. This run cannot go on; the next one goes by the new order",
			w.table.config.KeyColumn, w.order, key.order), nil)
	}
	w.key, w.order = key, key.order
	return nil
}

// explain is Table.explain. After an error about names, types or values it first checks
// whether the column was altered.
func (w *Walk) explain(ctx context.Context, doing string, err error) error {
	if _, explained := errors.AsType[*Error](err); explained {
		return err
	}
	if code := pg.SQLState(err); strings.HasPrefix(code, "22") || strings.HasPrefix(code, "42") {
		w.key = nil
		if altered := w.learn(ctx); altered != nil {
			return altered
		}
	}
	return w.table.explain(doing, err)
}

// slice returns FROM, WHERE and ORDER BY of the rows after one key and up to another, nil
// meaning no bound, and their arguments.
func (w *Walk) slice(after, upto *string) (string, []any) {
	t, k := w.table, w.key
	var b strings.Builder
	var args []any
	fmt.Fprintf(&b, "FROM %s\nWHERE %s", t.name(), t.present())
	for _, bound := range []struct {
		operator string
		key      *string
	}{{k.greater, after}, {k.lessEqual, upto}} {
		if bound.key != nil {
			fmt.Fprintf(&b, "\n  AND %s %s %s", k.column, bound.operator, k.bound(*bound.key, &args))
		}
	}
	return b.String() + t.condition() + "\nORDER BY " + k.sort, args
}

// readsBack returns the SQL condition that a key's text is read as the same key.
func (k *key) readsBack() string { return fmt.Sprintf("%s %s k", k.value("k::text"), k.equal) }

// Cut returns the key of the n-th row after one (nil: from the start). It reports false
// if there are fewer rows. Being a step of planning, it reads anew how keys are ordered.
// It returns an Error if the table cannot be paged.
func (w *Walk) Cut(ctx context.Context, after *string, n int) (key string, ok bool, err error) {
	w.key = nil
	if err := w.learn(ctx); err != nil {
		return "", false, err
	}
	if after == nil && w.key.nullable {
		if err := w.table.refuseNullKeys(ctx); err != nil {
			return "", false, err
		}
	}
	from, args := w.slice(after, nil)
	statement := fmt.Sprintf("SELECT %s, %s\nFROM (\nSELECT %s AS k\n%s\nOFFSET %d LIMIT 1\n) AS r", w.key.asIs("k::text"), w.key.readsBack(), w.key.column, from, n-1)
	var raw []byte
	var readsBack bool
	err = w.table.readRow(ctx, statement, args, &raw, &readsBack)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", false, nil
	case err != nil:
		return "", false, w.explain(ctx, "cut a range", err)
	case !readsBack:
		return "", false, w.lossy(raw)
	}
	return keyCursor(raw, w.key.encoding), true, nil
}

// Page returns at most limit rows after one key (nil: from the start) and up to another
// (nil: to the end). It returns an Error if the table cannot be paged.
func (w *Walk) Page(ctx context.Context, after, upto *string, limit int) (Page, error) {
	if err := w.learn(ctx); err != nil {
		return Page{}, err
	}
	// From SQL_ASCII Postgres converts nothing, and refuses what is not UTF-8.
	asBytes := w.key.encoding == noEncoding
	page, err := w.page(ctx, after, upto, limit, asBytes)
	if code := pg.SQLState(err); !asBytes && (code == pg.CharacterNotInRepertoire || code == pg.UntranslatableCharacter) {
		page, err = w.page(ctx, after, upto, limit, true) // it holds ids that Postgres cannot convert
	}
	if err != nil {
		return Page{}, w.explain(ctx, "read a page", err)
	}
	return page, nil
}

// page reads a page. Ids come as bytes of the database's encoding, or converted by
// Postgres.
func (w *Walk) page(ctx context.Context, after, upto *string, limit int, asBytes bool) (Page, error) {
	k := w.key
	from, args := w.slice(after, upto)
	id := func(text string) string {
		if asBytes {
			return k.asIs(text)
		}
		return text
	}
	// To bound a page's bytes by its rows, a long id is read as its beginning, length and
	// hash, and only the last key is read whole. The row after the page shows whether there
	// are more, and whether the last key occurs twice.
	const pageSQL = `
SELECT CASE WHEN n = {limit} OR next IS NOT DISTINCT FROM NULL THEN {key} ELSE {short key} END,
       CASE WHEN pg_catalog.octet_length(id) <= {longest} THEN {id} ELSE {short id} END,
       CASE WHEN pg_catalog.octet_length(id) > {longest}
            THEN pg_catalog.octet_length(id) || ' ' || pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(id, {encoding})), 'hex') END,
       CASE WHEN k {less} next THEN CASE WHEN n < {limit} THEN NULL WHEN {reads back} THEN 'more' ELSE 'lossy' END
            WHEN next IS NOT DISTINCT FROM NULL THEN CASE WHEN {reads back} THEN NULL ELSE 'lossy' END
            ELSE 'repeated' END
FROM (
SELECT k, id, pg_catalog.row_number() OVER w AS n, pg_catalog.lead(k) OVER w AS next
FROM (
SELECT {column} AS k, COALESCE((
{user id}
)::text) AS id
{slice}
LIMIT {limit} + 1
) AS r
WINDOW w AS ()
) AS r
WHERE n <= {limit}`
	statement := strings.NewReplacer(
		"{limit}", strconv.Itoa(limit), "{longest}", strconv.Itoa(longestID), "{encoding}", pg.Literal(k.encoding),
		"{key}", k.asIs("k::text"), "{short key}", k.asIs(beginning("k::text", shownKey)),
		"{id}", id("id"), "{short id}", id(beginning("id", shownID)),
		"{less}", k.less, "{reads back}", k.readsBack(), "{column}", k.column, "{user id}", w.table.config.UserID, "{slice}", from,
	).Replace(pageSQL)
	read := pageRows{encoding: k.encoding, asBytes: asBytes}
	if err := w.table.readRows(ctx, statement, args, func(rows pgx.Rows) error { return read.collect(rows, limit) }); err != nil {
		return Page{}, err
	}
	switch read.mark {
	case "lossy":
		return Page{}, w.lossy(read.lastKey)
	case "repeated":
		return Page{}, w.table.mistake(fmt.Sprintf("column %s has the key %s, and after it one that is not greater, so paging by it would lose users: make it unique, or set [users] key_column to a column that is (if a unique index says that it is, the index is damaged: REINDEX)",
			w.table.config.KeyColumn, shown(read.lastKey, shownKey)), nil)
	}
	texts, err := w.table.convert(ctx, k.encoding, read.oddIDs())
	if err != nil {
		return Page{}, err
	}
	return read.page(texts), nil
}

// beginning returns the SQL of the first characters of a text.
func beginning(text string, characters int) string {
	return fmt.Sprintf("pg_catalog.left(%s, %d)", text, characters)
}

// lossy returns the mistake that a key's text is read as another key.
func (w *Walk) lossy(key []byte) error {
	return w.table.mistake(fmt.Sprintf("column %s has the key %s, which is another one when it is read back from its text, so paging by it would not come to an end: set [users] key_column to a column of another type",
		w.table.config.KeyColumn, shown(key, shownKey)), nil)
}
