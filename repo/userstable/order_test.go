package userstable_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgtest"
	"syncer/repo/userstable"
)

// sentSQL keeps the statements that are sent, with their arguments.
type sentSQL struct {
	mu   sync.Mutex
	sent []pgx.TraceQueryStartData
}

// TraceQueryStart keeps a statement.
func (s *sentSQL) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, data)
	return ctx
}

// TraceQueryEnd does nothing.
func (s *sentSQL) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// tracedUsers opens a users table as openUsers does, and keeps its statements.
func tracedUsers(t testing.TB, c userstable.Config) (*userstable.Table, *sentSQL) {
	t.Helper()
	traced := &sentSQL{}
	databases := &userstable.Databases{Tracer: traced}
	t.Cleanup(databases.Close)
	users, err := databases.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return users, traced
}

// wantIndexed wants the statements that read from a table to be served by an index in
// its order: no sort, and no scan of the whole table.
func (s *sentSQL) wantIndexed(t testing.TB, conn *pgx.Conn, table string) {
	t.Helper()
	pgtest.Exec(t, conn, `SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off`)
	checked := 0
	for _, data := range s.sent {
		if !strings.Contains(data.SQL, `FROM "public"."`+table+`"`) || strings.Contains(data.SQL, "EXISTS") {
			continue
		}
		checked++
		plan := strings.Join(pgtest.Lines(t, conn, "EXPLAIN (COSTS OFF) "+data.SQL, data.Args...), "\n")
		if strings.Contains(plan, "->  Sort") || strings.Contains(plan, "Seq Scan") || !strings.Contains(plan, "Index") {
			t.Errorf("the plan of\n%s\nis\n%s", data.SQL, plan)
			return
		}
	}
	if checked == 0 {
		t.Errorf("no statement reads %s", table)
	}
}

// hostileSettings are those by which types write text that they do not read back as
// what it was, and a search_path on which the types of the test are not.
const hostileSettings = `
DO $$
DECLARE
    setting text;
BEGIN
    FOREACH setting IN ARRAY ARRAY['array_nulls = off', 'intervalstyle = ''sql_standard''', 'datestyle = ''German''', 'extra_float_digits = -15',
        'bytea_output = ''escape''', 'search_path = ''''', 'quote_all_identifiers = on', 'timezone = ''Asia/Shanghai''', 'transform_null_equals = on',
        'xmlbinary = ''hex''', 'standard_conforming_strings = off', 'lc_monetary = ''POSIX''']
    LOOP
        EXECUTE format('ALTER DATABASE %I SET %s', current_database(), setting);
    END LOOP;
END $$`

// orderedTypes are types, domains, collations and indexes of keys that are ordered in
// another way than their operators on the search_path compare, or written in a way
// that is not read back.
const orderedTypes = `
CREATE SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE COLLATION ext.folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN ext.nick AS ext.citext;
CREATE DOMAIN ext.bytes AS text COLLATE "C" CHECK (value <> '');
CREATE DOMAIN ext.short AS varchar(20) COLLATE "C";
CREATE TYPE ext.mood AS ENUM ('z', 'a', 'M');
CREATE DOMAIN ext.feeling AS ext.mood;
CREATE TYPE ext.pair AS (a int, b ext.citext);
CREATE TYPE ext.span AS RANGE (subtype = text, collation = "C");
CREATE DOMAIN ext.duo AS ext.pair;`

// TestUsers_order: whatever a key is, and however its index is ordered, each row is
// visited once, and the index serves the pages.
func TestUsers_order(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, orderedTypes)
	icu := collation(t, conn)
	const names = `('anna'), ('Ben'), ('carl'), ('Émile'), ('Zoë'), ('_'), ('10'), ('9')`
	tests := []struct{ name, table, values string }{
		{"citext outside of search_path", `(id ext.citext PRIMARY KEY)`, names},
		{"domain over citext", `(id ext.nick PRIMARY KEY)`, names},
		{"domain with a condition", `(id ext.bytes PRIMARY KEY)`, names},
		{"domain's collation is not the column's", `(id ext.bytes COLLATE ` + icu + ` PRIMARY KEY)`, names},
		{"domain over varchar", `(id ext.short UNIQUE NOT NULL)`, names},
		{"text_pattern_ops", `(id text COLLATE ` + icu + ` NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id text_pattern_ops)`, names},
		{"varchar_pattern_ops, descending", `(id varchar(30) NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id varchar_pattern_ops DESC)`, names},
		{"index by bytes, column by language", `(id text COLLATE ` + icu + ` NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id COLLATE "C")`, names + `, ('É'), ('e')`},
		{"index by language, column by bytes", `(id text COLLATE "C" NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id COLLATE ` + icu + `)`, names},
		{"nondeterministic", `(id text COLLATE ext.folded PRIMARY KEY)`, names},
		{"nondeterministic, index by bytes", `(id text COLLATE ext.folded NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id COLLATE "C")`, names + `, ('ANNA'), ('ben')`},
		{"citext, index by bytes", `(id ext.citext NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id COLLATE "C")`, names},
		{"varchar ordered as char", `(id varchar(30) NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id bpchar_ops)`, names + `, (' a')`},
		{"descending", `(id int NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id DESC)`, `(3), (-1), (20), (100)`},
		{"descending, NULLs last", `(id int NOT NULL); CREATE UNIQUE INDEX ON %[1]s (id DESC NULLS LAST)`, `(3), (-1), (20), (100)`},
		{"NULLs first", `(id int); CREATE UNIQUE INDEX ON %[1]s (id NULLS FIRST)`, `(3), (-1), (20), (100)`},
		{"character", `(id char(8) PRIMARY KEY)`, `('a'), ('a  b'), (' a'), ('B'), ('')`},
		{"one byte", `(id "char" PRIMARY KEY)`, `('a'), ('B'), ('1'), ('')`},
		{"name", `(id name PRIMARY KEY)`, names},
		{"enum", `(id ext.mood PRIMARY KEY)`, `('a'), ('z'), ('M')`},
		{"domain over enum", `(id ext.feeling PRIMARY KEY)`, `('a'), ('z'), ('M')`},
		{"row with NULL fields", `(id ext.pair PRIMARY KEY)`, `(ROW(1, NULL)), (ROW(NULL, 'b')), (ROW(NULL, NULL)), (ROW(1, 'Ben')), (ROW(1, 'anna')), (ROW(2, 'a,"b'))`},
		{"domain over row", `(id ext.duo PRIMARY KEY)`, `(ROW(1, NULL)::ext.pair), (ROW(NULL, NULL)::ext.pair), (ROW(1, 'Ben')::ext.pair)`},
		{"array with NULLs", `(id text[] PRIMARY KEY)`, `('{NULL}'), ('{"NULL"}'), ('{}'), ('{a,NULL}'), ('{a}'), ('[2:3]={a,b}')`},
		{"array of citext", `(id ext.citext[] PRIMARY KEY)`, `('{anna}'), ('{Ben}'), ('{carl}'), ('{anna,NULL}')`},
		{"range", `(id ext.span PRIMARY KEY)`, `('empty'), ('(,)'), ('[a,b)'), ('[B,b]'), ('["a,",)')`},
		{"multirange", `(id int4multirange PRIMARY KEY)`, `('{}'), ('{[1,2),[5,9)}'), ('{[1,2)}')`},
		{"float", `(id float8 PRIMARY KEY)`, `('NaN'), ('-0'), ('Infinity'), ('-Infinity'), (0.1), (0.1::float8 + 1e-17), (0.30000000000000004), (0.3), (1e300)`},
		{"numeric", `(id numeric PRIMARY KEY)`, `('NaN'), (1.00), (1.0000000000000000000001), ('Infinity'), ('-Infinity'), (-1.50), (10)`},
		{"interval", `(id interval PRIMARY KEY)`, `('1 day -1 hours'), ('-1 year 2 mons'), ('-1 days +02:03:04'), ('1 mon'), ('00:00:00.000001'), ('-1 mons')`},
		{"money", `(id money PRIMARY KEY)`, `('-5'), ('1234567.89'), ('0.01')`},
		{"time with zone", `(id timetz PRIMARY KEY)`, `('10:00+08'), ('10:00-03:30'), ('24:00+00')`},
		{"timestamp", `(id timestamp PRIMARY KEY)`, `('infinity'), ('-infinity'), ('0044-03-15 BC'), ('20000-02-03'), ('2026-02-01 00:00:00.000001')`},
		{"date", `(id date PRIMARY KEY)`, `('infinity'), ('0044-03-15 BC'), ('20000-02-03'), ('2026-02-01')`},
		{"range of dates", `(id tstzrange PRIMARY KEY)`, `('[2026-02-01 00:00+00,2026-03-02 00:00+00)'), ('(,2026-02-01 00:00+00]'), ('[2026-02-01 00:00+00,infinity]')`},
		{"bytea", `(id bytea PRIMARY KEY)`, `('\x00ff'), ('\x'), ('\x5c'), ('\x41'), ('\x27')`},
		{"jsonb", `(id jsonb PRIMARY KEY)`, `('1.00'), ('"Ben"'), ('"anna"'), ('{"b":1,"a":null}'), ('[]'), ('null')`},
		{"bits", `(id bit varying PRIMARY KEY)`, `(B'1'), (B'101'), (B''), (B'11')`},
		{"addresses", `(id cidr PRIMARY KEY)`, `('10.0.0.0/8'), ('10.0.0.1/32'), ('::1'), ('10.0.0.0/16')`},
		{"tsvector", `(id tsvector PRIMARY KEY)`, `('a:1 b:2'), (''), ('''a b''')`},
		{"boolean", `(id boolean PRIMARY KEY)`, `(true), (false)`},
		{"regtype", `(id regtype PRIMARY KEY)`, `('int'), ('ext.pair'), ('ext.mood'), ('char'), ('"char"')`},
		{"partitioned", `(id ext.citext PRIMARY KEY) PARTITION BY RANGE (id);
			CREATE TABLE %[1]s_a PARTITION OF %[1]s FOR VALUES FROM (MINVALUE) TO ('c'); CREATE TABLE %[1]s_c PARTITION OF %[1]s DEFAULT`, names},
	}
	for i, test := range tests {
		pgtest.Exec(t, conn, fmt.Sprintf(`CREATE TABLE public.t%d `+strings.ReplaceAll(test.table, "%[1]s", "public.t%[1]d")+`; INSERT INTO public.t%[1]d (id) VALUES `+strings.ReplaceAll(test.values, "%", "%%"), i))
	}
	pgtest.Exec(t, conn, hostileSettings)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, table := pgtest.Connect(t, url), fmt.Sprintf("t%d", i)
			pgtest.Exec(t, conn, `SET array_nulls = on; SET search_path = ext, public`)
			users, traced := tracedUsers(t, userstable.Config{URL: url, Table: []string{"public", table}, KeyColumn: "id", UserID: "'u' || md5(id::text)"})
			want := pgtest.Lines(t, conn, fmt.Sprintf(`SELECT count(*) FROM public.%s`, table))
			for _, sizes := range [][2]int{{2, 1}, {100, 2}, {100, 100}} {
				got := walkRanges(t, users, sizes[0], sizes[1])
				slices.Sort(got)
				if n := len(slices.Compact(slices.Clone(got))); fmt.Sprint(n) != want[0] || len(got) != n {
					t.Fatalf("ranges of %d, pages of %d: %d visits to %d of %s rows", sizes[0], sizes[1], len(got), n, want[0])
				}
			}
			traced.wantIndexed(t, conn, table)
		})
	}
}

// TestUsers_orderOfViews: what has no index is ordered by its type's own operators.
func TestUsers_orderOfViews(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, orderedTypes)
	for i, test := range []struct{ of, values string }{
		{`ext.citext`, `'anna', 'Ben', 'carl'`},
		{`ext.nick`, `'anna', 'Ben', 'carl'`},
		{`ext.short`, `'anna', 'Ben', 'carl'`},
		{`text`, `'anna', 'Ben', 'carl'`},
		{`cidr`, `'10.0.0.0/8', '::1'`},
		{`ext.mood`, `'a', 'z', 'M'`},
		{`ext.pair`, `'(1,)', '(,b)', '(,)'`},
		{`text[]`, `'{NULL}', '{"NULL"}', '{}'`},
		{`ext.span`, `'empty', '[a,b)'`},
		{`regclass`, `'pg_class', 'pg_type'`},
		{`char(4)`, `'a', 'B', ''`},
	} {
		table := fmt.Sprintf("v%d", i)
		pgtest.Exec(t, conn, fmt.Sprintf(`CREATE VIEW public.%s AS SELECT unnest(ARRAY[%s]::text[])::%s AS id`, table, test.values, test.of))
		users := openUsers(t, userstable.Config{URL: pgtest.WithParameters(t, url, "array_nulls", "off"), Table: []string{"public", table}, UserID: "id::text || '.'"})
		if got, want := walkRanges(t, users, 2, 1), strings.Count(test.values, ", ")+1; len(got) != want || len(slices.Compact(got)) != want {
			t.Errorf("keys of type %s: visited %q, want %d rows", test.of, got, want)
		}
	}
	pgtest.Exec(t, conn, `CREATE VIEW public.points AS SELECT point(1, 2) AS id`)
	wantMistake(t, openUsers(t, userstable.Config{URL: url, Table: []string{"public", "points"}, UserID: "id::text"}).Check(t.Context()),
		"column id is of type point", "no order", "[users] key_column")
}

// TestUsers_borrowedOperators: an index that ORDER BY cannot ask for would be sorted
// anew for each page.
func TestUsers_borrowedOperators(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `
CREATE FUNCTION public.backwards(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($2, $1)';
CREATE OPERATOR CLASS public.backwards_ops FOR TYPE int USING btree AS
    OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 public.backwards(int, int);
CREATE TABLE public.users (id int NOT NULL);
CREATE UNIQUE INDEX ON public.users (id public.backwards_ops);
INSERT INTO public.users VALUES (1), (3), (2)`)
	wantMistake(t, openUsers(t, userstable.Config{URL: url}).Check(t.Context()), "no unique index of its own", "operator class")
	pgtest.Exec(t, conn, `CREATE UNIQUE INDEX ON public.users (id)`)
	if diff := gocmp.Diff([]string{"1", "2", "3"}, walkRanges(t, openUsers(t, userstable.Config{URL: url}), 2, 1)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}
