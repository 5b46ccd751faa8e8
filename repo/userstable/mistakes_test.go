package userstable_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/dev/pgtest"
	"syncer/repo/userstable"
)

// wantMistake wants a *userstable.Error whose text holds all parts.
func wantMistake(t testing.TB, err error, parts ...string) {
	t.Helper()
	mistake, ok := errors.AsType[*userstable.Error](err)
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
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, mistakeTablesSQL)
	pgtest.Exec(t, conn, `CREATE SEQUENCE public.s`)
	tests := map[string]struct {
		config userstable.Config
		want   []string
	}{
		"missing table":             {userstable.Config{Table: []string{"public", "customers"}}, []string{"public.customers", "does not exist", "[users] table"}},
		"missing schema":            {userstable.Config{Table: []string{"crm", "users"}}, []string{"crm.users", "does not exist", "[users] table"}},
		"wrong case":                {userstable.Config{Table: []string{"Users"}}, []string{"Users", "does not exist"}},
		"missing column":            {userstable.Config{KeyColumn: "uid"}, []string{"no column uid", "[users] key_column"}},
		"system column":             {userstable.Config{KeyColumn: "ctid"}, []string{"no column ctid", "[users] key_column"}},
		"partial unique index":      {userstable.Config{KeyColumn: "twin"}, []string{"column twin has no unique index of its own", "[users] key_column"}},
		"only one of several":       {userstable.Config{KeyColumn: "name"}, []string{"column name has no unique index of its own", "[users] key_column"}},
		"NULL keys":                 {userstable.Config{KeyColumn: "nick"}, []string{"column nick is NULL in some rows", "[users] key_column", "[users] where"}},
		"NULL keys in condition":    {userstable.Config{KeyColumn: "nick", Where: "id > 2 -- some"}, []string{"column nick is NULL in some rows"}},
		"expression: column":        {userstable.Config{UserID: "im_id"}, []string{`column "im_id" does not exist`, "[users] user_id"}},
		"expression: syntax":        {userstable.Config{UserID: "id ||"}, []string{"syntax error", "[users] user_id"}},
		"expression: function":      {userstable.Config{UserID: "im_id(id)"}, []string{"im_id", "[users] user_id"}},
		"expression: value":         {userstable.Config{UserID: "name::int"}, []string{"invalid input syntax", "[users] user_id"}},
		"expression: parentheses":   {userstable.Config{UserID: "(id"}, []string{"syntax error"}},
		"condition: syntax":         {userstable.Config{Where: "id >"}, []string{"syntax error", "where"}},
		"condition: no condition":   {userstable.Config{Where: "id"}, []string{"must be type boolean", "where"}},
		"condition: writes":         {userstable.Config{Where: "public.write_id(id)"}, []string{"read-only transaction", "where"}},
		"expression: writes":        {userstable.Config{UserID: "nextval('public.s')"}, []string{"read-only transaction", "user_id"}},
		"condition: a second query": {userstable.Config{Where: "true); DELETE FROM public.users; SELECT (true"}, []string{"where"}},
		"two statements":            {userstable.Config{UserID: "id) FROM public.users; DELETE FROM public.users; SELECT (1"}, []string{"user_id"}},
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
	if diff := cmp.Diff([]string{"5"}, pgtest.Lines(t, conn, `SELECT count(*) FROM public.users`)); diff != "" {
		t.Errorf("rows of the users table after all (-want +got):\n%s", diff)
	}
}

func TestNullKeysLeftOut(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), mistakeTablesSQL)
	users := openUsers(t, userstable.Config{URL: url, KeyColumn: "nick", Where: "nick IS NOT NULL"})
	if got := strings.Join(walkPages(t, users, nil, nil, 2), " "); got != "1 2 4 5" {
		t.Errorf("visited %s", got)
	}
}

// A mistake that has been mended needs no new process.
func TestMendedMistake(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	users := openUsers(t, userstable.Config{URL: url})
	wantMistake(t, users.Check(t.Context()), "does not exist")
	pgtest.Exec(t, conn, `CREATE TABLE public.users (id int)`)
	wantMistake(t, users.Check(t.Context()), "no unique index")
	pgtest.Exec(t, conn, `ALTER TABLE public.users ADD PRIMARY KEY (id)`)
	if err := users.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEmptyTable(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), `CREATE TABLE public.users (id int PRIMARY KEY)`)
	users := openUsers(t, userstable.Config{URL: url})
	if got := walkRanges(t, users, 10, 10); len(got) != 0 {
		t.Errorf("visited %v", got)
	}
	if n, err := users.Count(t.Context()); n != 0 || err != nil {
		t.Errorf("Count = %d, %v", n, err)
	}
}

func TestMissingRights(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	role, asRole := pgtest.NewRole(t, conn, url)
	pgtest.Exec(t, conn, `CREATE TABLE public.users (id int PRIMARY KEY, secret text); INSERT INTO public.users VALUES (1, 'x');
CREATE SCHEMA crm; CREATE TABLE crm.users (id int PRIMARY KEY); GRANT SELECT ON crm.users TO `+role)
	users := openUsers(t, userstable.Config{URL: asRole})
	wantMistake(t, users.Check(t.Context()), "may not read it", "GRANT SELECT")
	_, err := users.Count(t.Context())
	wantMistake(t, err, "GRANT SELECT")
	_, _, err = users.Walk("").Cut(t.Context(), nil, 1)
	wantMistake(t, err, "GRANT SELECT")
	hidden := openUsers(t, userstable.Config{URL: asRole, Table: []string{"crm", "users"}})
	wantMistake(t, hidden.Check(t.Context()), "may not read it", `GRANT USAGE ON SCHEMA "crm" TO "`+role+`"; GRANT SELECT ON "crm"."users" TO "`+role+`"`)

	pgtest.Exec(t, conn, `GRANT SELECT (id) ON public.users TO `+role)
	if err := users.Check(t.Context()); err != nil {
		t.Errorf("with the right to read the only column used: %v", err)
	}
	wantMistake(t, openUsers(t, userstable.Config{URL: asRole, UserID: "secret"}).Check(t.Context()), "may not read it")
}

// What is no mistake is retried, and must not look like one.
func TestUnreachableDatabaseIsNoMistake(t *testing.T) {
	t.Parallel()
	users := openUsers(t, userstable.Config{URL: "postgres://nobody@127.0.0.1:1/app"})
	err := users.Check(t.Context())
	if _, ok := errors.AsType[*userstable.Error](err); err == nil || ok {
		t.Errorf("Check without a server: %v", err)
	} else if !strings.Contains(err.Error(), "users table public.users: look at the table: ") {
		t.Errorf("error %q does not say what was tried", err)
	}
}

// The users table may be in another database, that of a replica for one.
func TestAnotherDatabase(t *testing.T) {
	t.Parallel()
	elsewhere := pgtest.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, elsewhere), `CREATE TABLE public.users (id int PRIMARY KEY); INSERT INTO public.users VALUES (1), (2)`)
	wantMistake(t, openUsers(t, userstable.Config{URL: pgtest.Database(t)}).Check(t.Context()), "does not exist")
	if got := strings.Join(walkPages(t, openUsers(t, userstable.Config{URL: elsewhere}), nil, nil, 1), " "); got != "1 2" {
		t.Errorf("visited %s", got)
	}
}
