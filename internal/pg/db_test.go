package pg_test

import (
	"testing"

	"syncer/internal/pg"
)

func TestSQL(t *testing.T) {
	t.Parallel()
	const statement = `SELECT syncer.as_of() FROM syncer.app, old_syncer.app`
	for schema, want := range map[string]string{
		"":           statement,
		"syncer":     statement,
		"old_syncer": `SELECT "old_syncer".as_of() FROM "old_syncer".app, old_syncer.app`,
	} {
		db, err := pg.New(t.Context(), pg.Config{URL: "postgres://localhost/none", MaxConns: 1, Schema: schema})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if got := db.SQL(db.SQL(statement)); got != want {
			t.Errorf("schema %q: %s\nwant %s", schema, got, want)
		}
	}
}
