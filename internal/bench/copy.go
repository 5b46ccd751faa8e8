package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// copied are the tables that a first load fills.
var copied = []string{"presence_snapshot", "presence_history"}

const partitionsSQL = `
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = ('syncer.' || $1)::regclass`

const partitionKeySQL = `
SELECT coalesce(pg_get_partkeydef(('syncer.' || $1)::regclass), '')`

// copyRows makes tables with the same columns, checks, indexes and partitions
// and copies the rows of a first load there, in one transaction. It returns how
// long that took; the rows are in memory by then.
func (w *world) copyRows(ctx context.Context) (time.Duration, error) {
	var contents []*bytes.Buffer
	for _, table := range copied {
		if err := w.cloneTable(ctx, table); err != nil {
			return 0, err
		}
		// Of a partitioned table COPY needs a query.
		content := new(bytes.Buffer)
		if _, err := w.db.PgConn().CopyTo(ctx, content, fmt.Sprintf("COPY (SELECT * FROM syncer.%s) TO STDOUT BINARY", table)); err != nil {
			return 0, err
		}
		contents = append(contents, content)
	}
	if err := w.exec(ctx, "CHECKPOINT"); err != nil {
		return 0, err
	}
	began := time.Now()
	tx, err := w.db.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for i, table := range copied {
		tag, err := tx.Conn().PgConn().CopyFrom(ctx, contents[i], fmt.Sprintf("COPY copied.%s FROM STDIN BINARY", table))
		if err != nil {
			return 0, err
		}
		if tag.RowsAffected() != int64(w.users) {
			return 0, fmt.Errorf("%s has %d rows after the first load of %d users", table, tag.RowsAffected(), w.users)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, w.exec(ctx, "DROP SCHEMA copied CASCADE")
}

// cloneTable makes an empty table like one of syncer's in the schema copied.
func (w *world) cloneTable(ctx context.Context, table string) error {
	var key string
	if err := w.db.QueryRow(ctx, partitionKeySQL, table).Scan(&key); err != nil {
		return err
	}
	create := fmt.Sprintf("CREATE TABLE copied.%[1]s (LIKE syncer.%[1]s INCLUDING ALL)", table)
	if key != "" {
		create += " PARTITION BY " + key
	}
	if err := w.exec(ctx, "CREATE SCHEMA IF NOT EXISTS copied", create); err != nil {
		return err
	}
	rows, err := w.db.Query(ctx, partitionsSQL, table)
	if err != nil {
		return err
	}
	var partition, bounds string
	var statements []string
	_, err = pgx.ForEachRow(rows, []any{&partition, &bounds}, func() error {
		statements = append(statements, fmt.Sprintf("CREATE TABLE copied.%s PARTITION OF copied.%s %s", partition, table, bounds))
		return nil
	})
	if err != nil {
		return err
	}
	return w.exec(ctx, statements...)
}
