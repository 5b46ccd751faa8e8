package userstable_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"syncer/internal/dev/pgtest"
	"syncer/repo/userstable"
)

// openUsers opens a users table with key column and id expression id, unless
// the configuration says otherwise.
func openUsers(t testing.TB, c userstable.Config) *userstable.Table {
	t.Helper()
	if c.Table == nil {
		c.Table = []string{"public", "users"}
	}
	if c.KeyColumn == "" {
		c.KeyColumn = "id"
	}
	if c.UserID == "" {
		c.UserID = "id"
	}
	users, err := userstable.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(users.Close)
	return users
}

// walkPages reads the whole slice page by page.
func walkPages(t testing.TB, users *userstable.Table, after, upto *string, limit int) []string {
	t.Helper()
	var ids []string
	walk := users.Walk("")
	for {
		page, err := walk.Page(t.Context(), after, upto, limit)
		if err != nil {
			t.Fatal(err)
		}
		if page.Rows > limit || page.Rows != len(page.IDs)+page.Bad {
			t.Fatalf("a page of %d rows, with %d ids and %d without, the limit is %d", page.Rows, len(page.IDs), page.Bad, limit)
		}
		ids = append(ids, page.IDs...)
		for range page.Bad {
			ids = append(ids, "NULL")
		}
		if !page.More {
			return ids
		}
		after = &page.LastKey
	}
}

// nullsLast puts the rows without an id, NULL or empty, of which a page returns the
// number only, behind all others.
func nullsLast(ids []string) []string {
	for i, id := range ids {
		if id == "" {
			ids[i] = "NULL"
		}
	}
	slices.SortStableFunc(ids, func(a, b string) int { return cmp.Compare(index(a), index(b)) })
	return ids
}

func index(id string) int {
	if id == "NULL" {
		return 1
	}
	return 0
}

// walkRanges cuts the table into ranges and reads each page by page.
func walkRanges(t testing.TB, users *userstable.Table, rangeSize, pageSize int) []string {
	t.Helper()
	var ids []string
	var after *string
	walk := users.Walk("")
	for {
		key, more, err := walk.Cut(t.Context(), after, rangeSize)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return append(ids, walkPages(t, users, after, nil, pageSize)...)
		}
		part := walkPages(t, users, after, &key, pageSize)
		if len(part) != rangeSize {
			t.Errorf("a range of %d rows, want %d", len(part), rangeSize)
		}
		ids = append(ids, part...)
		after = &key
	}
}

// collation returns a collation whose order differs from that of bytes.
func collation(t testing.TB, conn *pgx.Conn) string {
	t.Helper()
	names := pgtest.Lines(t, conn, `
SELECT collname FROM pg_collation
WHERE collname IN ('en-US-x-icu', 'de-x-icu', 'en_US.utf8', 'en_US', 'de_DE.utf8')
ORDER BY collname <> 'en-US-x-icu', collname`)
	if len(names) == 0 {
		t.Fatal("the server has none of the collations that the test knows")
	}
	name := pgx.Identifier{names[0]}.Sanitize()
	if pgtest.Value[bool](t, conn, `SELECT 'a' < 'B' COLLATE "C"`) || !pgtest.Value[bool](t, conn, `SELECT 'a' < 'B' COLLATE `+name) {
		t.Fatalf("collation %s orders like bytes", name)
	}
	return name
}

// awkward are text keys that break careless quoting, comparing and ordering.
func awkward() []string {
	keys := []string{
		"", " ", "  lead", "trail  ", "a b", "a\tb", "a\nb", "o'neill", "''", `"quoted"`, `back\slash`, `\x41`, "$1", "%s",
		"; DROP TABLE users; --", "/* ", "NULL", "null", "a", "A", "á", "ä", "ae", "B", "b", "z", "Z", "ß", "ss", "ı", "İ",
		"-1", "1", "10", "2", "00", "北京", "上海", "Ж", "ж", "😀", "👩‍👩‍👧", "e\u0301", "é", "_", "~", "{a}", "x,y", strings.Repeat("long ", 50),
	}
	random := rand.New(rand.NewPCG(7, 7))
	for range 150 {
		runes := make([]rune, 1+random.IntN(6))
		for i := range runes {
			runes[i] = []rune("aAbBzZ-_ 09éÉß北ж'\"\\")[random.IntN(19)]
		}
		keys = append(keys, string(runes))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// fillTable inserts rows with awkward keys of the type of column id.
func fillTable(t *testing.T, conn *pgx.Conn, table string) {
	t.Helper()
	numbers := make([]int64, 0, 260)
	for i := range int64(250) {
		numbers = append(numbers, i*i-700)
	}
	numbers = append(numbers, -1<<63, 1<<63-1)
	column := pgtest.Value[string](t, conn, `SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = $1::regclass AND attname = 'id'`, table)
	switch column {
	case "text", "character varying", "name_of_user":
		pgtest.Exec(t, conn, `INSERT INTO `+table+` (id) SELECT unnest($1::text[])`, awkward())
	case "uuid":
		pgtest.Exec(t, conn, `INSERT INTO `+table+` (id) SELECT gen_random_uuid() FROM generate_series(1, 200)`)
	case "timestamptz", "timestamp with time zone":
		pgtest.Exec(t, conn, `INSERT INTO `+table+` (id) SELECT '2026-10-25 00:59:59.999997+00'::timestamptz + n * interval '13 minutes 0.000001 s' FROM generate_series(1, 200) AS n`)
	case "bytea":
		pgtest.Exec(t, conn, `INSERT INTO `+table+` (id) SELECT DISTINCT decode(md5(n::text), 'hex') FROM generate_series(1, 200) AS n`)
	case "numeric", "double precision":
		pgtest.Exec(t, conn, `INSERT INTO `+table+` (id) SELECT DISTINCT (n * n / 7.0 - 100)::numeric(20,4) FROM generate_series(1, 200) AS n`)
	case "integer":
		pgtest.Exec(t, conn, `INSERT INTO `+table+` (id) SELECT n - 100 FROM generate_series(1, 200) AS n`)
	default:
		pgtest.Exec(t, conn, `INSERT INTO `+table+` (id) SELECT unnest($1::bigint[])`, numbers)
	}
}

func TestEveryRowIsVisitedOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	collated := collation(t, conn)
	for i, test := range []struct {
		name, table string
		config      userstable.Config
		where, want string // of the full SELECT; want "": the id
	}{
		{name: "bigint", table: `CREATE TABLE %s (id bigint PRIMARY KEY)`},
		{name: "integer", table: `CREATE TABLE %s (id int PRIMARY KEY)`},
		{name: "uuid", table: `CREATE TABLE %s (id uuid PRIMARY KEY)`},
		{name: "numeric", table: `CREATE TABLE %s (id numeric(20,4) PRIMARY KEY)`},
		{name: "float", table: `CREATE TABLE %s (id double precision PRIMARY KEY)`},
		{name: "timestamptz", table: `CREATE TABLE %s (id timestamptz PRIMARY KEY)`},
		{name: "bytea", table: `CREATE TABLE %s (id bytea PRIMARY KEY)`},
		{name: "text of the database", table: `CREATE TABLE %s (id text PRIMARY KEY)`},
		{name: "text by bytes", table: `CREATE TABLE %s (id text COLLATE "C" PRIMARY KEY)`},
		{name: "text by language", table: `CREATE TABLE %s (id text COLLATE ` + collated + ` PRIMARY KEY)`},
		{name: "varchar", table: `CREATE TABLE %s (id varchar(600) COLLATE ` + collated + ` PRIMARY KEY)`},
		{name: "domain", table: `CREATE DOMAIN name_of_user AS text COLLATE ` + collated + `; CREATE TABLE %s (id name_of_user PRIMARY KEY)`},
		{name: "unique index", table: `CREATE TABLE %s (no int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, id text NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id)`},
		{name: "nullable without NULL", table: `CREATE TABLE %s (id bigint UNIQUE)`},
		{name: "partitioned", table: `CREATE TABLE %s (id bigint PRIMARY KEY) PARTITION BY HASH (id);
			CREATE TABLE %[1]s_0 PARTITION OF %[1]s FOR VALUES WITH (MODULUS 2, REMAINDER 0);
			CREATE TABLE %[1]s_1 PARTITION OF %[1]s FOR VALUES WITH (MODULUS 2, REMAINDER 1)`},
		{name: "expression", table: `CREATE TABLE %s (id bigint PRIMARY KEY)`,
			config: userstable.Config{UserID: "CASE WHEN id % 3 = 0 THEN NULL ELSE 'u_' || id END -- the IM id"},
			want:   `coalesce(CASE WHEN id % 3 = 0 THEN NULL ELSE 'u_' || id END, 'NULL')`},
		{name: "condition", table: `CREATE TABLE %s (id bigint PRIMARY KEY)`,
			config: userstable.Config{Where: "id % 2 = 0 OR id < 0 -- only some"}, where: "WHERE id % 2 = 0 OR id < 0"},
		{name: "a column named like the key's text", table: `CREATE TABLE %s (id bigint PRIMARY KEY, "text" int, key int)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, table := pgtest.Connect(t, url), fmt.Sprintf("users%d", i)
			pgtest.Exec(t, conn, `SET search_path = public`)
			pgtest.Exec(t, conn, fmt.Sprintf(test.table, table))
			fillTable(t, conn, table)
			test.config.URL, test.config.Table = url, []string{"public", table}
			users := openUsers(t, test.config)
			expression := cmp.Or(test.want, "id::text")
			// Qualified, because a bare id would be the column of the result.
			want := nullsLast(pgtest.Lines(t, conn, `SELECT `+expression+` FROM `+table+` `+test.where+` ORDER BY `+table+`.id`))
			if len(want) < 100 {
				t.Fatalf("only %d rows to visit", len(want))
			}
			for _, size := range []int{1, 2, 7, 50, len(want) - 1, len(want), len(want) + 1} {
				if diff := gocmp.Diff(want, nullsLast(walkPages(t, users, nil, nil, size))); diff != "" {
					t.Errorf("pages of %d (-want +got):\n%s", size, diff)
				}
			}
			for _, sizes := range [][2]int{{9, 1}, {10, 3}, {33, 33}, {64, 100}, {len(want), 10}, {len(want) + 1, 10}} {
				if diff := gocmp.Diff(want, nullsLast(walkRanges(t, users, sizes[0], sizes[1]))); diff != "" {
					t.Errorf("ranges of %d, pages of %d (-want +got):\n%s", sizes[0], sizes[1], diff)
				}
			}
			if n, err := users.Count(t.Context()); err != nil || n != int64(len(want)) {
				t.Errorf("Count = %d, %v; want %d", n, err, len(want))
			}
			if err := users.Check(t.Context()); err != nil {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

func TestView(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE TABLE public.members (no int PRIMARY KEY, name text COLLATE "C" UNIQUE);
INSERT INTO public.members SELECT n, 'm' || n FROM generate_series(1, 100) AS n;
CREATE VIEW public.users AS SELECT name AS id FROM public.members WHERE no > 10`)
	users := openUsers(t, userstable.Config{URL: url})
	want := pgtest.Lines(t, conn, `SELECT id FROM public.users ORDER BY id`)
	if diff := gocmp.Diff(want, walkRanges(t, users, 13, 5)); diff != "" {
		t.Errorf("ranges of 13 (-want +got):\n%s", diff)
	}
	pgtest.Exec(t, conn, `INSERT INTO public.members VALUES (101, NULL)`)
	wantMistake(t, openUsers(t, userstable.Config{URL: url}).Check(t.Context()), "column id is NULL in some rows", "[users] key_column")
}

func TestMaterializedView(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE MATERIALIZED VIEW public.users AS SELECT n AS id FROM generate_series(1, 20) AS n`)
	wantMistake(t, openUsers(t, userstable.Config{URL: url}).Check(t.Context()), "column id has no unique index", "create a unique index")
	pgtest.Exec(t, conn, `CREATE UNIQUE INDEX ON public.users (id)`)
	if got := walkPages(t, openUsers(t, userstable.Config{URL: url}), nil, nil, 3); len(got) != 20 {
		t.Errorf("visited %d rows of 20", len(got))
	}
}

func TestQuotedNames(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE SCHEMA "My Schema"; CREATE TABLE "My Schema"."User's ""Table""" ("The Key" bigint PRIMARY KEY, "IM id" text);
INSERT INTO "My Schema"."User's ""Table""" SELECT n, 'u' || n FROM generate_series(1, 9) AS n`)
	users := openUsers(t, userstable.Config{URL: url, Table: []string{"My Schema", `User's "Table"`}, KeyColumn: "The Key", UserID: `"IM id"`})
	want := []string{"u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8", "u9"}
	if diff := gocmp.Diff(want, walkRanges(t, users, 4, 3)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// A database may be set to write times in a style that cannot be read back:
// CST is read as American, six hours and eight apart from Shanghai's.
func TestTimesAsKeysInAnyStyle(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE TABLE public.users (id timestamptz PRIMARY KEY);
INSERT INTO public.users SELECT '2026-03-01 00:00:00+00'::timestamptz + n * interval '7 hours' FROM generate_series(1, 60) AS n`)
	name := pgtest.Value[string](t, conn, `SELECT current_database()`)
	for _, style := range []string{"SQL, DMY", "German", "Postgres, MDY", "ISO, YMD"} {
		pgtest.Exec(t, conn, `ALTER DATABASE `+name+` SET datestyle = '`+style+`'; ALTER DATABASE `+name+` SET timezone = 'Asia/Shanghai'`)
		users := openUsers(t, userstable.Config{URL: url, UserID: "extract(epoch FROM id)::bigint"})
		want := pgtest.Lines(t, conn, `SELECT extract(epoch FROM id)::bigint FROM public.users ORDER BY users.id`)
		if diff := gocmp.Diff(want, walkRanges(t, users, 13, 5)); diff != "" {
			t.Errorf("style %s (-want +got):\n%s", style, diff)
		}
	}
}

// Rows come and go while a table is paged: a row that was there all the time is
// visited once.
func TestChangesWhilePaging(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE TABLE public.users (id int PRIMARY KEY); INSERT INTO public.users SELECT n * 3 FROM generate_series(1, 300) AS n`)
	users := openUsers(t, userstable.Config{URL: url})
	random := rand.New(rand.NewPCG(3, 4))
	visited, deleted := map[string]int{}, map[string]bool{}
	var after *string
	walk := users.Walk("")
	for {
		page, err := walk.Page(t.Context(), after, nil, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range page.IDs {
			visited[id]++ // the id is the key
		}
		if !page.More {
			break
		}
		after = &page.LastKey
		// Delete the very row that paging goes on after, and some others.
		for _, key := range []string{*after, fmt.Sprint(3 * (1 + random.IntN(300))), fmt.Sprint(3 * (1 + random.IntN(300)))} {
			pgtest.Exec(t, conn, `DELETE FROM public.users WHERE id = $1::text::int`, key)
			deleted[key] = true
		}
		pgtest.Exec(t, conn, `INSERT INTO public.users VALUES ($1) ON CONFLICT DO NOTHING`, 1+3*random.IntN(300))
	}
	for n := range 300 {
		key := fmt.Sprint(3 * (n + 1))
		if visited[key] != 1 && !deleted[key] {
			t.Errorf("row %s stayed and was visited %d times", key, visited[key])
		}
	}
	for key, times := range visited {
		if times != 1 {
			t.Errorf("row %s was visited %d times", key, times)
		}
	}
}

// Ranges of several processes are read at once, also at the first use.
func TestReadersAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), `CREATE TABLE public.users (id int PRIMARY KEY); INSERT INTO public.users SELECT generate_series(1, 500)`)
	users := openUsers(t, userstable.Config{URL: url})
	var group errgroup.Group
	for range 12 {
		group.Go(func() error {
			if n := len(walkPages(t, users, nil, nil, 50)); n != 500 {
				return fmt.Errorf("visited %d rows of 500", n)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// Paging must use the key's index: with ten million rows anything else is lost.
func TestPagingUsesTheIndex(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	setup := pgtest.Connect(t, url)
	pgtest.Exec(t, setup, `CREATE TABLE public.users (id text COLLATE `+collation(t, conn)+` PRIMARY KEY, filler text);
INSERT INTO public.users SELECT to_char(n, 'FM00000'), repeat('x', 500) FROM generate_series(1, 20000) AS n`)
	pgtest.Exec(t, setup, `VACUUM ANALYZE public.users`)
	// A session reports its statistics at the latest when it ends.
	if err := setup.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Await(t, "the inserts are counted", func() bool {
		return pgtest.Value[int](t, conn, `SELECT n_tup_ins::int FROM pg_stat_user_tables WHERE relname = 'users'`) == 20000
	})
	const scansSQL = `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'users'`
	before := pgtest.Lines(t, conn, scansSQL)
	users := openUsers(t, userstable.Config{URL: url})
	if n := len(walkRanges(t, users, 5000, 1000)); n != 20000 {
		t.Fatalf("visited %d rows", n)
	}
	users.Close()
	pgtest.Await(t, "the reads are counted", func() bool {
		return pgtest.Value[int](t, conn, `SELECT idx_scan::int FROM pg_stat_user_tables WHERE relname = 'users'`) >= 24
	})
	if diff := gocmp.Diff(before, pgtest.Lines(t, conn, scansSQL)); diff != "" {
		t.Errorf("scans of the whole table (-want +got):\n%s", diff)
	}
}

// TestUsersOfThePrimary: a URL that asks for a session that takes writes, as that
// of the database with several hosts does, is good for the users table too.
func TestUsersOfThePrimary(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, pgtest.Connect(t, url), `CREATE TABLE public.users (id bigint PRIMARY KEY)`)
	users := openUsers(t, userstable.Config{URL: url + "&target_session_attrs=read-write"})
	if err := users.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
