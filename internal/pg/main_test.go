package pg_test

import (
	"testing"

	"go.uber.org/goleak"

	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.M{M: m}) }

// open connects to a database until the test ends.
func open(t testing.TB, c pg.Config) *pg.DB {
	t.Helper()
	db, err := pg.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if err := db.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}
