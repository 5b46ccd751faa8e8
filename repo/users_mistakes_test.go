package repo_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgtest"
	"syncer/repo"
)

// wantMistake wants a *repo.UsersError whose text holds all parts.
func wantMistake(t testing.TB, err error, parts ...string) {
	t.Helper()
	mistake, ok := errors.AsType[*repo.UsersError](err)
	if !ok {
		t.Errorf("error %v is no *UsersError", err)
		return
	}
	for _, part := range append(parts, "users table "+mistake.Table) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

const mistakeTablesSQL = `
CREATE TABLE public.users (id bigint PRIMARY KEY, name text, nick text UNIQUE, twin int NOT NULL);
INSERT INTO public.users SELECT n, CASE WHEN n < 4 THEN n::text ELSE 'x' END, CASE WHEN n <> 3 THEN 'n' || n END, n / 2 FROM generate_series(1, 5) AS n;
CREATE UNIQUE INDEX ON public.users (twin) WHERE id = 1;
CREATE UNIQUE INDEX ON public.users (name, id);
CREATE UNIQUE INDEX ON public.users (lower(name || id));
CREATE FUNCTION public.write_id(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.users; RETURN true; END $$;`

func TestMistakes(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	exec(t, conn, mistakeTablesSQL)
	exec(t, conn, `CREATE SEQUENCE public.s`)
	tests := map[string]struct {
		config repo.UsersConfig
		want   []string
	}{
		"missing table":             {repo.UsersConfig{Table: []string{"public", "customers"}}, []string{"public.customers", "does not exist", "[users] table"}},
		"missing schema":            {repo.UsersConfig{Table: []string{"crm", "users"}}, []string{"crm.users", "does not exist", "[users] table"}},
		"wrong case":                {repo.UsersConfig{Table: []string{"Users"}}, []string{"Users", "does not exist"}},
		"missing column":            {repo.UsersConfig{KeyColumn: "uid"}, []string{"no column uid", "[users] key_column"}},
		"system column":             {repo.UsersConfig{KeyColumn: "ctid"}, []string{"no column ctid", "[users] key_column"}},
		"partial unique index":      {repo.UsersConfig{KeyColumn: "twin"}, []string{"column twin has no unique index of its own", "[users] key_column"}},
		"only one of several":       {repo.UsersConfig{KeyColumn: "name"}, []string{"column name has no unique index of its own", "[users] key_column"}},
		"NULL keys":                 {repo.UsersConfig{KeyColumn: "nick"}, []string{"column nick is NULL in some rows", "[users] key_column", "[users] where"}},
		"NULL keys in condition":    {repo.UsersConfig{KeyColumn: "nick", Where: "id > 2 -- some"}, []string{"column nick is NULL in some rows"}},
		"expression: column":        {repo.UsersConfig{UserID: "im_id"}, []string{`column "im_id" does not exist`, "[users] user_id"}},
		"expression: syntax":        {repo.UsersConfig{UserID: "id ||"}, []string{"syntax error", "[users] user_id"}},
		"expression: function":      {repo.UsersConfig{UserID: "im_id(id)"}, []string{"im_id", "[users] user_id"}},
		"expression: value":         {repo.UsersConfig{UserID: "name::int"}, []string{"invalid input syntax", "[users] user_id"}},
		"expression: parentheses":   {repo.UsersConfig{UserID: "(id"}, []string{"syntax error"}},
		"condition: syntax":         {repo.UsersConfig{Where: "id >"}, []string{"syntax error", "where"}},
		"condition: no condition":   {repo.UsersConfig{Where: "id"}, []string{"must be type boolean", "where"}},
		"condition: writes":         {repo.UsersConfig{Where: "public.write_id(id)"}, []string{"read-only transaction", "where"}},
		"expression: writes":        {repo.UsersConfig{UserID: "nextval('public.s')"}, []string{"read-only transaction", "user_id"}},
		"condition: a second query": {repo.UsersConfig{Where: "true); DELETE FROM public.users; SELECT (true"}, []string{"where"}},
		"two statements":            {repo.UsersConfig{UserID: "id) FROM public.users; DELETE FROM public.users; SELECT (1"}, []string{"user_id"}},
	}
	t.Run("each", func(t *testing.T) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test.config.URL = url
				users := openUsers(t, test.config)
				err := users.Check(t.Context())
				if err == nil { // rows that break come after the first
					_, err = users.Walk("").Page(t.Context(), nil, nil, 10)
				}
				wantMistake(t, err, test.want...)
				if test.config.Where != "" && !strings.HasPrefix(name, "NULL") {
					_, _, err := users.Walk("").Cut(t.Context(), nil, 1)
					wantMistake(t, err, test.want...)
					_, err = users.Count(t.Context())
					wantMistake(t, err, "count the rows")
				}
			})
		}
	})
	wantLines(t, conn, "rows of the users table after all", `SELECT count(*) FROM public.users`, "5")
}

func TestNullKeysLeftOut(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	exec(t, connect(t, url), mistakeTablesSQL)
	users := openUsers(t, repo.UsersConfig{URL: url, KeyColumn: "nick", Where: "nick IS NOT NULL"})
	if got := strings.Join(walkPages(t, users, nil, nil, 2), " "); got != "1 2 4 5" {
		t.Errorf("visited %s", got)
	}
}

// A mistake that has been mended needs no new process.
func TestMendedMistake(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	users := openUsers(t, repo.UsersConfig{URL: url})
	wantMistake(t, users.Check(t.Context()), "does not exist")
	exec(t, conn, `CREATE TABLE public.users (id int)`)
	wantMistake(t, users.Check(t.Context()), "no unique index")
	exec(t, conn, `ALTER TABLE public.users ADD PRIMARY KEY (id)`)
	if err := users.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEmptyTable(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	exec(t, connect(t, url), `CREATE TABLE public.users (id int PRIMARY KEY)`)
	users := openUsers(t, repo.UsersConfig{URL: url})
	if got := walkRanges(t, users, 10, 10); len(got) != 0 {
		t.Errorf("visited %v", got)
	}
	if n, err := users.Count(t.Context()); n != 0 || err != nil {
		t.Errorf("Count = %d, %v", n, err)
	}
}

// newRole makes a role without any rights; it goes with the test. The URL is
// that of a session in which it acts.
func newRole(t testing.TB, conn *pgx.Conn, databaseURL string) (name, asRole string) {
	t.Helper()
	name = "syncer_test_" + strings.ToLower(rand.Text()[:10])
	exec(t, conn, `CREATE ROLE `+name)
	t.Cleanup(func() {
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, databaseURL)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.Exec(ctx, `DROP OWNED BY `+name+`; DROP ROLE `+name); err != nil {
			t.Error(err)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return name, withParameters(t, databaseURL, "role", name)
}

func TestMissingRights(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	role, asRole := newRole(t, conn, url)
	exec(t, conn, `CREATE TABLE public.users (id int PRIMARY KEY, secret text); INSERT INTO public.users VALUES (1, 'x');
CREATE SCHEMA crm; CREATE TABLE crm.users (id int PRIMARY KEY); GRANT SELECT ON crm.users TO `+role)
	users := openUsers(t, repo.UsersConfig{URL: asRole})
	wantMistake(t, users.Check(t.Context()), "may not read it", "GRANT SELECT")
	_, err := users.Count(t.Context())
	wantMistake(t, err, "GRANT SELECT")
	_, _, err = users.Walk("").Cut(t.Context(), nil, 1)
	wantMistake(t, err, "GRANT SELECT")
	hidden := openUsers(t, repo.UsersConfig{URL: asRole, Table: []string{"crm", "users"}})
	wantMistake(t, hidden.Check(t.Context()), "may not read it", `GRANT USAGE ON SCHEMA "crm" TO "`+role+`"; GRANT SELECT ON "crm"."users" TO "`+role+`"`)

	exec(t, conn, `GRANT SELECT (id) ON public.users TO `+role)
	if err := users.Check(t.Context()); err != nil {
		t.Errorf("with the right to read the only column used: %v", err)
	}
	wantMistake(t, openUsers(t, repo.UsersConfig{URL: asRole, UserID: "secret"}).Check(t.Context()), "may not read it")
}

// What is no mistake is retried, and must not look like one.
func TestUnreachableDatabaseIsNoMistake(t *testing.T) {
	t.Parallel()
	users := openUsers(t, repo.UsersConfig{URL: "postgres://nobody@127.0.0.1:1/app"})
	err := users.Check(t.Context())
	if _, ok := errors.AsType[*repo.UsersError](err); err == nil || ok {
		t.Errorf("Check without a server: %v", err)
	} else if !strings.Contains(err.Error(), "users table public.users: look at the table: ") {
		t.Errorf("error %q does not say what was tried", err)
	}
}

// The users table may be in another database, that of a replica for one.
func TestAnotherDatabase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	elsewhere := pgtest.Database(t)
	exec(t, connect(t, elsewhere), `CREATE TABLE public.users (id int PRIMARY KEY); INSERT INTO public.users VALUES (1), (2)`)
	wantMistake(t, openUsers(t, repo.UsersConfig{URL: b.url}).Check(t.Context()), "does not exist")
	if got := strings.Join(walkPages(t, openUsers(t, repo.UsersConfig{URL: elsewhere}), nil, nil, 1), " "); got != "1 2" {
		t.Errorf("visited %s", got)
	}
}
