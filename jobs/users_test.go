package jobs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/repo"
	"syncer/repo/userstable"
)

// TestUsers_badIDs: what cannot be asked about becomes a failure of its own; all
// others are swept, each once.
func TestUsers_badIDs(t *testing.T) {
	t.Parallel()
	const long, foreign = "thirty-three-bytes-are-too-many-!", "ünïcode"
	w := setup(t, worldOptions{users: 20})
	w.exec(`INSERT INTO public.users (id, uid) VALUES (101, NULL), (102, ''), (103, $1), (104, $2), (105, 'u000001'), (106, 'u000001'), (107, NULL)`, long, foreign)
	s := w.spec()
	s.Page = 3 // the repeated ids are on different pages, and on one
	e := w.engine(s)
	for _, tc := range []struct {
		provider imclient.Provider
		failing  map[string]string
		swept    []string
		failed   int64
	}{
		{imclient.ProviderTencent, map[string]string{"": "null_id", long: "invalid_id", foreign: "invalid_id"}, userIDs(20), 5},
		{imclient.ProviderOpenIM, map[string]string{"": "null_id"}, append(userIDs(20), long, foreign), 3},
	} {
		app := e.app(tc.provider)
		for _, k := range bothTables {
			run := w.backfill(e, tc.provider, k.kind)
			w.ended(run, repo.RunPartial)
			if run.Failed != tc.failed || run.Changed != int64(len(tc.swept)) || run.Calls != int64(w.sim.Stats().APIs[simPaths[k.served[tc.provider]]].Calls) {
				t.Errorf("%s %s: counters %+v", tc.provider, k.kind, run.Counters)
			}
			if diff := cmp.Diff(tc.failing, w.failing(k.kind, app.ID)); diff != "" {
				t.Errorf("%s %s: failing users (-want +got):\n%s", tc.provider, k.kind, diff)
			}
			w.truthful(k, app, tc.swept)
		}
	}
	// The rows are named, so that somebody can find them.
	if n := w.count(`SELECT count(*) FROM syncer.user_failure WHERE user_id = '' AND message LIKE '%with key 1%' AND message LIKE '%where%'`); n != 4 {
		t.Errorf("%d of 4 messages about rows without id say which rows and what to do", n)
	}
	// Mended rows are no failure any more.
	w.exec(`DELETE FROM public.users WHERE id > 100`)
	for provider, app := range e.apps {
		w.ended(w.backfill(e, provider, imclient.KindPresence), repo.RunSucceeded)
		if left := w.failing(imclient.KindPresence, app.ID); len(left) > 0 {
			t.Errorf("%s: still failing: %v", provider, left)
		}
	}
}

// TestUsers_unfit: an id that is no text, or too long for anything, fails alone, under a
// name that can be stored; all others are swept. The table is in a database that knows
// no encoding, whose keys are no text either.
func TestUsers_unfit(t *testing.T) {
	t.Parallel()
	const users = 1000
	other := pgtest.DatabaseIn(t, "SQL_ASCII")
	w := setup(t, worldOptions{users: users})
	elsewhere, err := pgxpool.New(w.ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(elsewhere.Close)
	there := &world{t: t, ctx: w.ctx, db: elsewhere}
	there.exec(`
CREATE TABLE members (name text PRIMARY KEY);
INSERT INTO members SELECT 'u' || lpad(n::text, 6, '0') FROM generate_series(1, 1000) AS n;
INSERT INTO members VALUES (convert_from('\x4a6f73e9', 'SQL_ASCII')), (repeat('x', 2600)), (repeat('x', 2601))`)
	s := w.spec()
	s.Page, s.Range = 100, 300
	s.Users = userstable.Config{URL: other, Table: []string{"members"}, KeyColumn: "name", UserID: "name"}
	e := w.engine(s)
	for _, k := range bothTables {
		for range 2 { // what is known already is no trouble
			run := w.backfill(e, imclient.ProviderOpenIM, k.kind)
			w.ended(run, repo.RunPartial)
			if run.Failed != 3 || run.Users != users+3 {
				t.Errorf("%s: counters %+v", k.kind, run.Counters)
			}
		}
		app := e.app(imclient.ProviderOpenIM)
		codes := map[string]int{}
		for id, code := range w.failing(k.kind, app.ID) {
			codes[id[:min(len(id), 4)]+" "+code]++
		}
		if diff := cmp.Diff(map[string]int{`Jos\ invalid_id`: 1, "xxxx invalid_id": 2}, codes); diff != "" {
			t.Errorf("%s: failing users (-want +got):\n%s", k.kind, diff)
		}
		w.truthful(k, app, userIDs(users))
	}
	if n := w.count(`SELECT count(*) FROM syncer.user_failure WHERE message LIKE '%row with key Jos\\xe9 is not text%' OR message LIKE '%row with key xxx%has 260_ bytes%'`); n != 6 {
		t.Errorf("%d of 6 messages say which rows and what is wrong", n)
	}
	there.exec(`DELETE FROM members WHERE name NOT LIKE 'u%'`)
	w.ended(w.backfill(e, imclient.ProviderOpenIM, imclient.KindPresence), repo.RunSucceeded)
}

// TestUsers_altered: the key of the users table is altered while the engine works.
func TestUsers_altered(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 500})
	s := w.spec()
	s.Page, s.Range = 30, 100
	e := w.engine(s)
	app := e.app(imclient.ProviderOpenIM)
	failed := func(want ...string) {
		t.Helper()
		run := w.backfill(e, imclient.ProviderOpenIM, imclient.KindPresence)
		w.ended(run, repo.RunFailed)
		for _, part := range want {
			if !strings.Contains(run.Error, part) {
				t.Errorf("the run's error is %q, want %q in it", run.Error, part)
			}
		}
	}
	swept := func() {
		t.Helper()
		run := w.backfill(e, imclient.ProviderOpenIM, imclient.KindPresence)
		w.ended(run, repo.RunSucceeded)
		if run.Users != 500 {
			t.Errorf("%d users, want 500", run.Users)
		}
		w.truthful(presenceTables, app, userIDs(500))
	}
	swept()
	w.exec(`ALTER TABLE public.users ALTER id TYPE numeric`)
	swept()
	w.exec(`ALTER TABLE public.users ALTER id TYPE text`)
	swept()
	w.exec(`ALTER TABLE public.users DROP CONSTRAINT users_pkey`)
	failed("no unique index", "key_column")
	w.exec(`ALTER TABLE public.users ADD PRIMARY KEY (id)`)
	swept()
	// A run that was cut by the old order does not go on by the new one.
	w.exec(`UPDATE public.users SET id = lpad(id, 6, '0')`)
	w.exec(`CREATE FUNCTION syncer.alter_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE syncer.sync_run SET key_order = 'pg_catalog.int8 by pg_catalog.integer_ops' WHERE run_id = new.run_id;
    RETURN NULL;
END $$;
CREATE TRIGGER alter_key AFTER INSERT ON syncer.sync_range FOR EACH ROW WHEN (new.upper_key IS NULL) EXECUTE FUNCTION syncer.alter_key()`)
	failed("column id has been altered meanwhile", "integer_ops", "text_ops", "the next one goes by the new order")
	w.exec(`DROP TRIGGER alter_key ON syncer.sync_range`)
	swept()
}

func TestUsers_none(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{})
	e := w.engine(w.spec())
	run := w.backfill(e, imclient.ProviderTencent, imclient.KindPresence)
	w.ended(run, repo.RunSucceeded)
	if diff := cmp.Diff(repo.Counters{}, run.Counters); diff != "" || w.calls() != 0 {
		t.Errorf("%d calls, counters (-want +got):\n%s", w.calls(), diff)
	}
}

// TestUsers_mistakes: a users table that cannot be used fails the run at once,
// with words that name the setting.
func TestUsers_mistakes(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 10})
	w.exec(`CREATE TABLE public.twins (id int, uid text); INSERT INTO public.twins VALUES (1, 'a'), (1, 'b')`)
	for name, tc := range map[string]struct {
		change func(*userstable.Config)
		want   []string
	}{
		"no table":      {func(c *userstable.Config) { c.Table = []string{"public", "people"} }, []string{"public.people", "does not exist", "[users] table"}},
		"no key":        {func(c *userstable.Config) { c.KeyColumn = "key" }, []string{"has no column key", "key_column"}},
		"no unique key": {func(c *userstable.Config) { c.Table = []string{"public", "twins"} }, []string{"no unique index", "key_column"}},
		"expression":    {func(c *userstable.Config) { c.UserID = "nickname" }, []string{`column "nickname" does not exist`, "user_id"}},
		"condition":     {func(c *userstable.Config) { c.Where = "team = 'red'" }, []string{"invalid input syntax", "where"}},
		"writing":       {func(c *userstable.Config) { c.UserID = "nextval('public.s')::text" }, []string{"read-only transaction", "user_id"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			w.exec(`CREATE SEQUENCE IF NOT EXISTS public.s`)
			s := w.spec()
			tc.change(&s.Users)
			e := w.engine(s)
			run := w.backfill(e, imclient.ProviderOpenIM, imclient.KindPresence)
			w.ended(run, repo.RunFailed)
			for _, want := range tc.want {
				if !strings.Contains(run.Error, want) {
					t.Errorf("the run's error is %q, want %q in it", run.Error, want)
				}
			}
			w.stop(e, patience) // the next one shall not work with this one's table
		})
	}
	if w.calls() != 0 {
		t.Errorf("%d calls were made", w.calls())
	}
}

// TestUsers_shapes: keys of other types, a condition, and a table in another
// database under a password.
func TestUsers_shapes(t *testing.T) {
	t.Parallel()
	other := pgtest.Database(t)
	w := setup(t, worldOptions{users: 500})
	w.exec(`
CREATE TABLE public.by_uuid AS SELECT md5(uid)::uuid AS key, uid FROM public.users;
ALTER TABLE public.by_uuid ADD PRIMARY KEY (key);
CREATE TABLE public.by_text AS SELECT uid AS key FROM public.users;
ALTER TABLE public.by_text ADD PRIMARY KEY (key)`)
	elsewhere, err := pgxpool.New(w.ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(elsewhere.Close)
	(&world{t: t, ctx: w.ctx, db: elsewhere}).exec(`CREATE TABLE members (id int PRIMARY KEY, name text); INSERT INTO members SELECT n, n::text FROM generate_series(1, 500) AS n`)
	for name, tc := range map[string]struct {
		users userstable.Config
		want  int
	}{
		"uuid":             {userstable.Config{Table: []string{"public", "by_uuid"}, KeyColumn: "key", UserID: "uid"}, 500},
		"text":             {userstable.Config{Table: []string{"by_text"}, KeyColumn: "key", UserID: "key"}, 500},
		"condition":        {userstable.Config{Table: []string{"public", "users"}, KeyColumn: "id", UserID: "uid", Where: "team < 3 -- teams of a hundred"}, 299},
		"another database": {userstable.Config{URL: other, Table: []string{"members"}, KeyColumn: "id", UserID: "'u' || lpad(name, 6, '0')"}, 500},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			w.sim.Reset()
			w.exec(`TRUNCATE syncer.presence_snapshot, syncer.presence_history`)
			s := w.spec()
			s.Range, s.Page = 100, 30
			if tc.users.URL == "" {
				tc.users.URL = w.url
			}
			s.Users = tc.users
			e := w.engine(s)
			run := w.backfill(e, imclient.ProviderOpenIM, imclient.KindPresence)
			w.ended(run, repo.RunSucceeded)
			if run.Users != int64(tc.want) {
				t.Errorf("%d users, want %d", run.Users, tc.want)
			}
			w.truthful(presenceTables, e.app(imclient.ProviderOpenIM), userIDs(tc.want))
			w.stop(e, patience)
		})
	}
}
