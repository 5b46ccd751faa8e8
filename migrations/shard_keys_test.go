package migrations_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The tables that grow with the users are those with a user_id, but for the list
// of users of a run, which is gone with the run. Each can be cut up by user_id.
const userTablesSQL = `
WITH user_table AS (
    SELECT c.oid, c.relname
    FROM pg_class AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'user_id'
    WHERE c.relnamespace = 'syncer'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'sync_run_user'
)`

// TestUserTablesFitShards: nothing of a table of users needs a look at another
// shard than the user's.
func TestUserTablesFitShards(t *testing.T) {
	conn := connect(t, migrated(t))
	for _, c := range []struct {
		what, sql string
		want      []string
	}{
		{
			what: "tables of users",
			sql:  `SELECT relname::text FROM user_table ORDER BY relname`,
			want: []string{"account_history", "account_snapshot", "presence_day", "presence_history", "presence_snapshot", "user_failure"},
		},
		{
			what: "unique keys without app_id and user_id",
			sql: `
SELECT i.indexrelid::regclass::text
FROM user_table AS u
JOIN pg_index AS i ON i.indrelid = u.oid
WHERE i.indisunique AND (
    SELECT count(*)
    FROM pg_attribute AS a
    WHERE a.attrelid = u.oid AND a.attname IN ('app_id', 'user_id') AND a.attnum = ANY (i.indkey)) < 2`,
		},
		{
			what: "foreign keys to other tables than app, which each shard has all of",
			sql: `
SELECT f.conname::text
FROM user_table AS u
JOIN pg_constraint AS f ON f.contype = 'f' AND u.oid IN (f.conrelid, f.confrelid)
WHERE f.confrelid <> 'app'::regclass`,
		},
		{
			what: "constraints between rows, other than keys",
			sql: `
SELECT x.conname::text
FROM user_table AS u
JOIN pg_constraint AS x ON x.conrelid = u.oid AND x.contype IN ('x', 't')`,
		},
		{
			what: "triggers",
			sql: `
SELECT g.tgname::text
FROM user_table AS u
JOIN pg_trigger AS g ON g.tgrelid = u.oid AND NOT g.tgisinternal`,
		},
		{
			what: "columns that the database numbers or makes up",
			sql: `
SELECT u.relname || '.' || a.attname
FROM user_table AS u
JOIN pg_attribute AS a ON a.attrelid = u.oid AND a.attnum > 0
WHERE a.atthasdef OR a.attidentity <> ''`,
		},
		{
			what: "user_ids of other types or collations, which would fall on other shards",
			sql: `
SELECT u.relname || ' ' || format_type(a.atttypid, a.atttypmod)
FROM user_table AS u
JOIN pg_attribute AS a ON a.attrelid = u.oid AND a.attname = 'user_id'
WHERE NOT (a.atttypid = 'text'::regtype AND a.attnotnull AND a.attcollation = '"C"'::regcollation)`,
		},
	} {
		if diff := cmp.Diff(c.want, nonEmpty(column[string](t, conn, userTablesSQL+c.sql))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

// nonEmpty gives nil for an empty list.
func nonEmpty(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}
