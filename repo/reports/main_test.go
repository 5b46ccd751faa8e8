package reports_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/migrations"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.M{M: m}) }

// newApp makes a database with the schema and an app named main.
func newApp(t testing.TB) (url string, conn *pgx.Conn, appID int16) {
	t.Helper()
	url = pgtest.Template(t, "migrated", func(url string) error {
		m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: "syncer"})
		if err != nil {
			return err
		}
		defer m.Close()
		_, err = m.Up(t.Context())
		return err
	})
	conn = pgtest.Connect(t, url)
	return url, conn, pgtest.Value[int16](t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', now()) RETURNING app_id`)
}

// open connects to a database until the test ends.
func open(t testing.TB, c pg.Config) *pg.DB {
	t.Helper()
	c.Schema, c.MaxConns, c.Process = "syncer", 1, "report"
	db, err := pg.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}
