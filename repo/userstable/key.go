package userstable

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// key describes how the keys of a users table are compared, ordered and written as text: by one operator family and one collation, those of the unique index. Without
// them ORDER BY and > can disagree: > is looked up in search_path, and both take the
// column's collation, not the index's.
type key struct {
	column   string // the key column, qualified, as the operators take it
	typ      string // the type that the operators take
	collate  string // " COLLATE …"; "": the column's own
	sort     string // what rows are ordered by
	encoding string // of the database
	order    string // names type, operator family and collation
	nullable bool   // a row may have no key
	// The operators, with their schema.
	less, lessEqual, equal, greater string
}

// value returns the SQL that reads a key from text.
func (k *key) value(text string) string {
	return fmt.Sprintf("CAST(%s AS %s)%s", text, k.typ, k.collate)
}

// bound returns the SQL of the key that a cursor holds, and adds its argument to args.
func (k *key) bound(cursor string, args *[]any) string {
	if raw, ok := cursorBytes(cursor); ok {
		*args = append(*args, raw)
		return k.value(fmt.Sprintf("pg_catalog.convert_from($%d::bytea, %s)", len(*args), pg.Literal(k.encoding)))
	}
	*args = append(*args, cursor)
	return k.value(fmt.Sprintf("$%d::text", len(*args)))
}

// asIs returns the SQL that yields a text as it is stored. In a database that is not
// UTF-8 it yields bytes, because Postgres refuses to send what it cannot convert.
func (k *key) asIs(text string) string {
	if k.encoding == pg.UTF8 {
		return text
	}
	return fmt.Sprintf("pg_catalog.convert_to(%s, %s)", text, pg.Literal(k.encoding))
}

// A table has the order of a unique btree index of the key column alone, so that the
// index serves the pages and no two rows have the same key. The primary key goes first,
// then the column's default operator class and collation. An index whose < belongs to
// another family too is of no use, because ORDER BY … USING does not say which family
// it means. A view or a foreign table has no index; it has the default order of the
// type.
//
// An operator class takes the column's type, or one to which that converts for free
// (text for varchar, the base type for a domain), or a pseudo-type such as anyarray.
const keySQL = `
WITH RECURSIVE key AS (
    SELECT c.oid AS relid, c.relkind, a.attnum, a.attnotnull, a.atttypid, a.atttypmod, a.attcollation
    FROM pg_catalog.pg_class AS c
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = $2 AND NOT a.attisdropped AND a.attnum > 0
    WHERE c.oid = pg_catalog.to_regclass($1)
), layer AS (
    SELECT atttypid AS oid FROM key
    UNION ALL
    SELECT t.typbasetype FROM layer JOIN pg_catalog.pg_type AS t USING (oid) WHERE t.typtype = 'd'
), base AS (
    SELECT t.oid, CASE t.typtype WHEN 'e' THEN 'anyenum' WHEN 'c' THEN 'record' WHEN 'r' THEN 'anyrange' WHEN 'm' THEN 'anymultirange'
        ELSE CASE t.typcategory WHEN 'A' THEN 'anyarray' END END::pg_catalog.regtype AS kind
    FROM layer JOIN pg_catalog.pg_type AS t USING (oid)
    WHERE t.typtype <> 'd'
), btree AS (
    SELECT o.oid, o.opcintype, o.opcdefault
    FROM pg_catalog.pg_opclass AS o
    JOIN pg_catalog.pg_am AS m ON m.oid = o.opcmethod
    WHERE m.amname = 'btree'
      AND (o.opcdefault OR NOT EXISTS (
          SELECT FROM pg_catalog.pg_amop AS a
          JOIN pg_catalog.pg_amop AS b ON b.amopopr = a.amopopr AND b.amopmethod = a.amopmethod AND b.amopfamily <> a.amopfamily
          WHERE a.amopfamily = o.opcfamily AND a.amoplefttype = o.opcintype AND a.amopstrategy = 1 AND b.amopstrategy IN (1, 5)))
), found AS (
    SELECT btree.oid AS opclass, i.indcollation[0] AS collation, i.indoption[0] AS option,
           ARRAY[NOT i.indisprimary, NOT btree.opcdefault, i.indcollation[0] <> key.attcollation] AS rank, i.indexrelid AS id
    FROM key
    JOIN pg_catalog.pg_index AS i ON i.indrelid = key.relid AND i.indkey[0] = key.attnum AND i.indnkeyatts = 1
    JOIN btree ON btree.oid = i.indclass[0]
    WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL
    UNION ALL
    SELECT btree.oid, key.attcollation, 0, ARRAY[btree.opcintype <> base.oid, NOT t.typispreferred], btree.oid
    FROM key, base, btree JOIN pg_catalog.pg_type AS t ON t.oid = btree.opcintype
    WHERE key.relkind IN ('v', 'f') AND btree.opcdefault
      AND (btree.opcintype IN (base.oid, base.kind) OR EXISTS (
          SELECT FROM pg_catalog.pg_cast AS c
          WHERE c.castsource = base.oid AND c.casttarget = btree.opcintype AND c.castmethod = 'b' AND c.castcontext = 'i'))
    ORDER BY rank, id
    LIMIT 1
)
SELECT key.relkind::text, key.attnotnull, pg_catalog.format_type(key.atttypid, key.atttypmod), pg_catalog.getdatabaseencoding(),
       (SELECT pg_catalog.string_agg(h.inhrelid::pg_catalog.regclass::text, ', ' ORDER BY h.inhrelid)
        FROM pg_catalog.pg_inherits AS h
        WHERE h.inhparent = key.relid AND key.relkind <> 'p'),
       pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.typname), t.oid <> key.atttypid,
       o.opcdefault AND (o.opcintype = base.oid OR o.opcintype = base.kind) IS TRUE,
       pg_catalog.quote_ident(fn.nspname) || '.' || pg_catalog.quote_ident(f.opfname),
       pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(c.collname),
       found.option,
       (SELECT pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', n.nspname, p.oprname) ORDER BY a.amopstrategy)
        FROM pg_catalog.pg_amop AS a
        JOIN pg_catalog.pg_operator AS p ON p.oid = a.amopopr
        JOIN pg_catalog.pg_namespace AS n ON n.oid = p.oprnamespace
        WHERE a.amopfamily = f.oid AND a.amoplefttype = o.opcintype AND a.amoprighttype = o.opcintype AND a.amoppurpose = 's')
FROM key
LEFT JOIN base ON true
LEFT JOIN found ON true
LEFT JOIN pg_catalog.pg_opclass AS o ON o.oid = found.opclass
LEFT JOIN pg_catalog.pg_opfamily AS f ON f.oid = o.opcfamily
LEFT JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.opfnamespace
LEFT JOIN pg_catalog.pg_type AS t ON t.oid = CASE WHEN o.opcintype = base.kind THEN base.oid ELSE o.opcintype END
LEFT JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_collation AS c ON c.oid = found.collation
LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.collnamespace`

// indexDescending and indexNullsFirst are flags of pg_index.indoption.
const (
	indexDescending = 1 << iota
	indexNullsFirst
)

// keyRow is the row of keySQL.
type keyRow struct {
	relkind                string
	notNull                *bool
	columnType, children   *string // columnType nil: there is no such column
	encoding               string
	typ, family, collation *string // typ nil: there is no order to page by
	cast, isDefault        *bool
	option                 *int16
	operators              []string // <, <=, =, >=, >
}

// indexed reports whether the order is that of an index: views and foreign tables have none.
func (r *keyRow) indexed() bool { return r.relkind != "v" && r.relkind != "f" }

// key reads how the key column is ordered. It returns an Error if paging by it would lose
// users. The statement takes Postgres 10 ms, most of them to plan it, so calls during it
// share its result: if the runs of many apps with one users table begin at one tick, each
// needs it twice.
func (t *Table) key(ctx context.Context) (*key, error) {
	name := strings.Join([]string{t.config.URL, t.name(), t.config.KeyColumn}, " ")
	reading := t.keys.DoChan(name, func() (any, error) {
		return t.readKey(context.WithoutCancel(ctx)) // the others wait even if this caller leaves
	})
	select {
	case r := <-reading:
		k, _ := r.Val.(*key)
		return k, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (t *Table) readKey(ctx context.Context) (*key, error) {
	var r keyRow
	err := t.readRow(ctx, keySQL, []any{t.name(), t.config.KeyColumn},
		&r.relkind, &r.notNull, &r.columnType, &r.encoding, &r.children, &r.typ, &r.cast, &r.isDefault, &r.family, &r.collation, &r.option, &r.operators)
	column := t.config.KeyColumn
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, t.mistake("does not exist (or this role may not see it): check [users] table, and url if it is in another database", nil)
	case err != nil:
		return nil, t.explain("look at the table", err)
	case r.columnType == nil:
		return nil, t.mistake(fmt.Sprintf("has no column %s: check [users] key_column", column), nil)
	case r.children != nil:
		return nil, t.mistake(fmt.Sprintf("is the parent of %s, whose rows its unique index does not cover, so a key could occur twice: set [users] table to a view, CREATE VIEW … AS SELECT … FROM ONLY %s, or of all of them if no key occurs twice", *r.children, t.name()), nil)
	case r.typ == nil && r.indexed():
		return nil, t.mistake(fmt.Sprintf("column %s has no unique index of its own, so paging by it would lose users: set [users] key_column to the primary key, or create a unique index (without a condition, and not of an operator class that borrows its operators from another)", column), nil)
	case r.typ == nil || len(r.operators) != 5:
		return nil, t.mistake(fmt.Sprintf("column %s is of type %s, whose values have no order to page by: set [users] key_column to a column of another type", column, *r.columnType), nil)
	}
	return t.keyOf(&r), nil
}

// keyOf returns the key that a row describes.
func (t *Table) keyOf(r *keyRow) *key {
	k := &key{
		typ: *r.typ, encoding: r.encoding, nullable: !r.indexed() || !*r.notNull, order: *r.typ + " by " + *r.family,
		less: r.operators[0], lessEqual: r.operators[1], equal: r.operators[2], greater: r.operators[4],
	}
	if r.collation != nil {
		k.order += " in " + *r.collation
		if r.indexed() { // elsewhere it is the column's, and a foreign server may not know it by name
			k.collate = " COLLATE " + *r.collation
		}
	}
	k.column = t.column()
	if *r.cast { // a cast to the column's own type would hide the index from the planner
		k.column += "::" + k.typ
	}
	k.column += k.collate
	k.sort = fmt.Sprintf("%s USING %s", k.column, k.less)
	if *r.isDefault { // ORDER BY finds the default by itself, also for a domain over an enum, which has no operators
		k.sort = t.column() + k.collate
	}
	// A descending index is read backwards.
	if descending, first := *r.option&indexDescending != 0, *r.option&indexNullsFirst != 0; descending != first {
		k.sort += " NULLS FIRST"
	} else {
		k.sort += " NULLS LAST"
	}
	return k
}

// present returns the condition that a row has a key. IS NOT NULL is false for a
// composite value with a NULL field.
func (t *Table) present() string { return t.column() + " IS DISTINCT FROM NULL" }

// refuseNullKeys looks for rows without a key, which paging would skip.
func (t *Table) refuseNullKeys(ctx context.Context) error {
	statement := fmt.Sprintf("SELECT EXISTS (\nSELECT FROM %s\nWHERE NOT %s%s\n)", t.name(), t.present(), t.condition())
	var found bool
	if err := t.readRow(ctx, statement, nil, &found); err != nil {
		return t.explain("look for NULL keys", err)
	}
	if found {
		return t.mistake(fmt.Sprintf("column %s is NULL in some rows, which paging by it would never reach: set [users] key_column to a column without NULL, or leave those rows out with [users] where", t.config.KeyColumn), nil)
	}
	return nil
}
