package userstable_test

import (
	"fmt"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"syncer/internal/dev/pgtest"
	"syncer/repo/userstable"
)

// walkUntil reads a table page by page, to its end or to an error.
func walkUntil(t testing.TB, users *userstable.Table, limit int) (ids []string, err error) {
	t.Helper()
	walk := users.Walk("")
	var after *string
	for {
		page, err := walk.Page(t.Context(), after, nil, limit)
		if err != nil {
			return ids, err
		}
		ids = append(ids, page.IDs...)
		if !page.More {
			return ids, nil
		}
		if len(ids) > 1000 {
			t.Fatal("the walk does not come to an end")
		}
		after = &page.LastKey
	}
}

// TestUsers_repeatedKeys: what is no table can have a key twice, also in rows that a
// page ends between; text that differs can be the same key.
func TestUsers_repeatedKeys(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, orderedTypes)
	for i, test := range []struct{ of, values, key string }{
		{"int", "'1', '2', '3', '3', '4', '5'", "3"},
		{"text", "'a', 'b', 'b'", "b"},
		{"ext.citext", "'anna', 'Ben', 'ben', 'carl'", ""},
		{"numeric", "'1.00', '1.0', '2'", "1.0"},
		{"float8", "'-0', '0', '1'", ""},
		{"float8", "'1', 'NaN', 'NaN'", "NaN"},
		{"ext.pair", "'(1,)', '(1,)', '(2,)'", "(1,)"},
		{"ext.pair", "'(,)', '(,)'", "(,)"},
		{"char(5)", "'a', 'a ', 'b'", "a"},
		{"jsonb", "'1.0', '1.00'", "1.0"},
		{"interval", "'24 hours', '1 day'", ""},
	} {
		view := fmt.Sprintf("v%d", i)
		pgtest.Exec(t, conn, fmt.Sprintf(`CREATE VIEW public.%s AS SELECT unnest(ARRAY[%s]::text[])::%s AS id`, view, test.values, test.of))
		users := openUsers(t, userstable.Config{URL: url, Table: []string{"public", view}, UserID: "'u'"})
		for _, limit := range []int{1, 2, 3, 100} {
			_, err := walkUntil(t, users, limit)
			wantMistake(t, err, "column id has the key "+test.key, "after it one that is not greater", "key_column")
		}
	}
}

// TestUsers_inheritance: the unique index of a parent does not cover its children.
func TestUsers_inheritance(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `
CREATE TABLE public.users (id int PRIMARY KEY);
CREATE TABLE public.staff (PRIMARY KEY (id)) INHERITS (public.users);
INSERT INTO public.users VALUES (1), (2);
INSERT INTO public.staff VALUES (2), (3);
CREATE VIEW public.own AS SELECT id FROM ONLY public.users;
CREATE VIEW public.everyone AS SELECT id FROM public.users`)
	wantMistake(t, openUsers(t, userstable.Config{URL: url}).Check(t.Context()), "is the parent of staff", "CREATE VIEW", `FROM ONLY "public"."users"`)
	if diff := gocmp.Diff([]string{"1", "2"}, walkRanges(t, openUsers(t, userstable.Config{URL: url, Table: []string{"public", "own"}}), 1, 1)); diff != "" {
		t.Errorf("the parent's own rows (-want +got):\n%s", diff)
	}
	everyone := openUsers(t, userstable.Config{URL: url, Table: []string{"public", "everyone"}})
	_, err := walkUntil(t, everyone, 2)
	wantMistake(t, err, "column id has the key 2")
	pgtest.Exec(t, conn, `UPDATE public.staff SET id = id + 2`)
	if diff := gocmp.Diff([]string{"1", "2", "4", "5"}, walkRanges(t, everyone, 3, 1)); diff != "" {
		t.Errorf("all rows (-want +got):\n%s", diff)
	}
}

// TestUsers_severalIDs: a row has one user id.
func TestUsers_severalIDs(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), `CREATE TABLE public.users (id int PRIMARY KEY, ids text[]); INSERT INTO public.users VALUES (1, '{a}'), (2, '{b,c}')`)
	for _, expression := range []string{"unnest(ids)", "'u' || generate_series(1, id)", "regexp_split_to_table('a,b', ',')", "(SELECT unnest(ids))", "row_number() OVER ()::text || count(*)"} {
		users := openUsers(t, userstable.Config{URL: url, UserID: expression})
		_, err := walkUntil(t, users, 10)
		wantMistake(t, err, "read a page", "[users] user_id")
	}
}

// TestUsers_lossyText: a key whose text is that of another one would be met again and again.
func TestUsers_lossyText(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), `
CREATE TYPE public.level AS ENUM ('low', 'middle', 'high');
CREATE FUNCTION public.level_text(public.level) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'low' $$;
CREATE CAST (public.level AS text) WITH FUNCTION public.level_text(public.level);
CREATE TABLE public.users (id public.level PRIMARY KEY);
INSERT INTO public.users VALUES ('low'), ('middle'), ('high')`)
	users := openUsers(t, userstable.Config{URL: url, UserID: "enum_send(id)"})
	for _, limit := range []int{1, 2, 10} {
		_, err := walkUntil(t, users, limit)
		wantMistake(t, err, "column id has the key low", "another one when it is read back", "key_column")
	}
	_, _, err := users.Walk("").Cut(t.Context(), nil, 2)
	wantMistake(t, err, "another one when it is read back")
}

// TestUsers_altered: what is known of the key is read anew at each planning, and when
// a statement fails as if it were no longer so.
func TestUsers_altered(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE TABLE public.users (id int PRIMARY KEY); INSERT INTO public.users SELECT generate_series(8, 12)`)
	users := openUsers(t, userstable.Config{URL: url})
	old, late := users.Walk(""), users.Walk("")
	cut, more, err := old.Cut(t.Context(), nil, 2)
	if err != nil || !more || cut != "9" {
		t.Fatalf("Cut: %q, %t, %v", cut, more, err)
	}
	if _, err := late.Page(t.Context(), nil, &cut, 1); err != nil {
		t.Fatal(err)
	}
	altered := func(what string, err error) {
		t.Helper()
		t.Log(what)
		wantMistake(t, err, "column id has been altered meanwhile", "pg_catalog.int4 by pg_catalog.integer_ops", "the next one") // as in "This run cannot go on"
	}

	// As text, 10 comes before 9.
	pgtest.Exec(t, conn, `ALTER TABLE public.users ALTER id TYPE text`)
	_, _, err = old.Cut(t.Context(), &cut, 2)
	altered("planning goes on", err)
	_, err = users.Walk(old.Order()).Page(t.Context(), nil, &cut, 10)
	altered("a range is begun", err)
	if diff := gocmp.Diff([]string{"10", "11", "12", "8", "9"}, walkRanges(t, users, 2, 1)); diff != "" {
		t.Errorf("after it became text (-want +got):\n%s", diff)
	}

	// A page of which the key no longer can be cast.
	pgtest.Exec(t, conn, `ALTER TABLE public.users ALTER id TYPE bytea USING id::bytea`)
	_, err = late.Page(t.Context(), nil, &cut, 10)
	altered("a range goes on", err)

	pgtest.Exec(t, conn, `ALTER TABLE public.users ALTER id TYPE bigint USING encode(id, 'escape')::bigint`)
	if diff := gocmp.Diff([]string{"8", "9", "10", "11", "12"}, walkRanges(t, users, 2, 1)); diff != "" {
		t.Errorf("after it became bigint (-want +got):\n%s", diff)
	}
	// Without the index nothing keeps keys apart.
	pgtest.Exec(t, conn, `ALTER TABLE public.users DROP CONSTRAINT users_pkey; INSERT INTO public.users VALUES (10)`)
	_, _, err = users.Walk("").Cut(t.Context(), nil, 2)
	wantMistake(t, err, "column id has no unique index of its own")
	pgtest.Exec(t, conn, `CREATE UNIQUE INDEX ON public.users (id) WHERE id <> 10`)
	_, _, err = users.Walk("").Cut(t.Context(), nil, 2)
	wantMistake(t, err, "column id has no unique index of its own")
}

// TestUsers_rowSecurity: policies that hide rows fail the reading.
func TestUsers_rowSecurity(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	role, asRole := pgtest.NewRole(t, conn, url)
	owner, asOwner := pgtest.NewRole(t, conn, url)
	pgtest.Exec(t, conn, `
CREATE TABLE public.users (id int PRIMARY KEY, uid text);
INSERT INTO public.users SELECT n, 'u' || n FROM generate_series(1, 5) AS n;
CREATE TABLE public.parts (id int PRIMARY KEY, uid text) PARTITION BY RANGE (id);
CREATE TABLE public.part PARTITION OF public.parts DEFAULT;
INSERT INTO public.parts SELECT * FROM public.users;
CREATE VIEW public.seen AS SELECT * FROM public.users;
CREATE VIEW public.joined AS SELECT p.* FROM public.parts AS p JOIN public.users USING (id);
GRANT CREATE ON SCHEMA public TO `+owner+`;
ALTER TABLE public.users OWNER TO `+owner+`; ALTER TABLE public.parts OWNER TO `+owner+`; ALTER VIEW public.seen OWNER TO `+owner+`; ALTER VIEW public.joined OWNER TO `+owner+`;
GRANT SELECT ON public.users, public.parts, public.seen, public.joined TO `+role)
	check := func(what, url, table, where string, hidden bool) {
		t.Helper()
		users := openUsers(t, userstable.Config{URL: url, Table: []string{"public", table}, UserID: "uid", Where: where})
		_, _, planning := users.Walk("").Cut(t.Context(), nil, 2)
		_, paging := users.Walk("").Page(t.Context(), nil, nil, 2)
		_, counting := users.Count(t.Context())
		for doing, err := range map[string]error{"check": users.Check(t.Context()), "plan": planning, "page": paging, "count": counting} {
			switch {
			case hidden:
				t.Logf("%s: %s", what, doing)
				wantMistake(t, err, "row-level security", "BYPASSRLS", "a view that belongs to the table's owner", "[users] where")
			case err != nil:
				t.Errorf("%s: %s: %v", what, doing, err)
			}
		}
	}
	check("before", asRole, "users", "", false)
	check("before, a join", asRole, "joined", "", false)
	pgtest.Exec(t, conn, `ALTER TABLE public.users ENABLE ROW LEVEL SECURITY`)
	check("no policy shows a row", asRole, "users", "", true)
	check("its owner", asOwner, "users", "", false)
	check("its owner's view", asRole, "seen", "", false)
	check("a superuser", url, "users", "", false)
	check("within the condition", asRole, "parts", "EXISTS (SELECT FROM public.users AS u WHERE u.id = parts.id)", true)
	pgtest.Exec(t, conn, `CREATE POLICY few ON public.users USING (id < 3)`)
	check("some rows", asRole, "users", "", true)
	pgtest.Exec(t, conn, `ALTER TABLE public.users FORCE ROW LEVEL SECURITY`)
	check("its owner, forced", asOwner, "users", "", true)
	check("its owner's view, forced", asRole, "seen", "", true)
	pgtest.Exec(t, conn, `ALTER ROLE `+role+` BYPASSRLS`)
	check("a role that bypasses it", asRole, "users", "", false)
	pgtest.Exec(t, conn, `ALTER ROLE `+role+` NOBYPASSRLS; ALTER TABLE public.users DISABLE ROW LEVEL SECURITY; ALTER TABLE public.part ENABLE ROW LEVEL SECURITY`)
	check("of a partition alone, which does not hold for its table", asRole, "parts", "", false)
	pgtest.Exec(t, conn, `ALTER TABLE public.parts ENABLE ROW LEVEL SECURITY`)
	check("of a partitioned table", asRole, "parts", "", true)
	if pgtest.Value[bool](t, conn, `SELECT current_setting('server_version_num')::int >= 150000`) {
		pgtest.Exec(t, conn, `CREATE VIEW public.asked WITH (security_invoker) AS SELECT * FROM public.parts; GRANT SELECT ON public.asked TO `+role)
		check("a view with the rights of who asks", asRole, "asked", "", true)
	}
	pgtest.Exec(t, conn, `DROP TABLE public.users, public.parts CASCADE`) // and the roles can go
}
