package userstable_test

import (
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"syncer/internal/dev/pgtest"
	"syncer/repo/userstable"
)

// sharedUsers opens tables a00, a01, … of one database, each with a user of that
// name. They share their connections.
func sharedUsers(t testing.TB, url string, n int) []*userstable.Table {
	t.Helper()
	conn := pgtest.Connect(t, url)
	databases := &userstable.Databases{}
	t.Cleanup(databases.Close)
	var all []*userstable.Table
	for i := range n {
		name := fmt.Sprintf("a%02d", i)
		pgtest.Exec(t, conn, `CREATE TABLE public.`+name+` (id text PRIMARY KEY)`)
		pgtest.Exec(t, conn, `INSERT INTO public.`+name+` VALUES ('`+name+`')`)
		users, err := databases.Open(t.Context(), userstable.Config{URL: url, Table: []string{"public", name}, KeyColumn: "id", UserID: "id"})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, users)
	}
	return all
}

const usersConnectionsSQL = `
SELECT count(*)::int
FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'syncer users'`

// TestUsersDatabases_shared: the apps of one database, however many, share a few
// connections.
func TestUsersDatabases_shared(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	tables := sharedUsers(t, url, 50)
	got, want := make([]string, len(tables)), make([]string, len(tables))
	var group errgroup.Group
	for i, users := range tables {
		want[i] = fmt.Sprintf("a%02d", i)
		users.Close() // ends nothing of the others
		group.Go(func() error {
			page, err := users.Walk("").Page(t.Context(), nil, nil, 10)
			got[i] = strings.Join(page.IDs, "")
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
	if n := pgtest.Value[int](t, pgtest.Connect(t, url), usersConnectionsSQL); n < 1 || n > 16 {
		t.Errorf("%d connections for 50 tables", n)
	}
}

// TestUsersDatabases_lockedTable: statements that wait for a locked table
// leave connections to the others.
func TestUsersDatabases_lockedTable(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	tables := sharedUsers(t, url, 2)
	conn := pgtest.Connect(t, url)
	owner := pgtest.Connect(t, url)
	pgtest.Exec(t, owner, `BEGIN`)
	pgtest.Exec(t, owner, `LOCK TABLE public.a00`)
	var group errgroup.Group
	for range 20 {
		group.Go(func() error {
			_, err := tables[0].Walk("").Page(t.Context(), nil, nil, 10)
			return err
		})
	}
	pgtest.AwaitLocked(t, conn, 4)
	if got := walkPages(t, tables[1], nil, nil, 10); !gocmp.Equal(got, []string{"a01"}) {
		t.Errorf("the other table's users are %v", got)
	}
	pgtest.Exec(t, owner, `ROLLBACK`)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := walkPages(t, tables[0], nil, nil, 10); !gocmp.Equal(got, []string{"a00"}) {
		t.Errorf("the table's users are %v", got)
	}
}
