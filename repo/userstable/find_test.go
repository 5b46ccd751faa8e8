package userstable_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/dev/pgtest"
	"syncer/repo/userstable"
)

// TestFindUser holds what is found by id and by key, within the condition and
// outside of it.
func TestFindUser(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `CREATE TABLE public.users (id bigint PRIMARY KEY, name text, active boolean)`)
	pgtest.Exec(t, conn, `INSERT INTO public.users VALUES (1, 'anna', true), (2, 'ben', false), (3, NULL, true), (4, 'twice', true), (5, 'twice', false), (6, 'ben', NULL)`)
	pgtest.Exec(t, conn, `CREATE VIEW public.keyless AS SELECT nullif(id, 1) AS id, name, active FROM public.users`)
	pgtest.Exec(t, conn, `CREATE TABLE public.named (name text PRIMARY KEY)`)
	pgtest.Exec(t, conn, `INSERT INTO public.named VALUES ('anna'), ('o''hara')`)

	all := userstable.Config{URL: url, Table: []string{"public", "users"}, KeyColumn: "id", UserID: "name -- the IM id"}
	active := all
	active.Where = "active -- only these"
	view := all
	view.Table = []string{"public", "keyless"}
	named := userstable.Config{URL: url, Table: []string{"public", "named"}, KeyColumn: "name", UserID: "name"}
	s := func(text string) *string { return &text }
	for _, c := range []struct {
		name    string
		config  userstable.Config
		text    string
		outside bool
		byKey   bool
		want    []userstable.Row
	}{
		{name: "there", config: all, text: "anna", want: []userstable.Row{{s("1"), s("anna"), true}}},
		{name: "not there", config: all, text: "Anna"},
		{name: "no condition", config: all, text: "twice", want: []userstable.Row{{s("4"), s("twice"), true}, {s("5"), s("twice"), true}}},
		{name: "within", config: active, text: "twice", want: []userstable.Row{{s("4"), s("twice"), true}}},
		{name: "not within", config: active, text: "ben"},
		{name: "outside", config: active, text: "ben", outside: true, want: []userstable.Row{{s("2"), s("ben"), false}, {s("6"), s("ben"), false}}},
		{name: "within comes first", config: active, text: "twice", outside: true, want: []userstable.Row{{s("4"), s("twice"), true}, {s("5"), s("twice"), false}}},
		{name: "without a key", config: view, text: "anna", want: []userstable.Row{{nil, s("anna"), true}}},
		{name: "by key", config: active, text: "2", byKey: true, want: []userstable.Row{{s("2"), s("ben"), false}}},
		{name: "without an id", config: active, text: "3", byKey: true, want: []userstable.Row{{s("3"), nil, true}}},
		{name: "no such key", config: all, text: "99", byKey: true},
		{name: "no key at all", config: all, text: "anna", byKey: true},
		{name: "too large a key", config: all, text: "99999999999999999999", byKey: true},
		{name: "taken literally", config: named, text: "o'hara", byKey: true, want: []userstable.Row{{s("o'hara"), s("o'hara"), true}}},
	} {
		users, err := userstable.Open(t.Context(), c.config)
		if err != nil {
			t.Fatal(err)
		}
		var rows []userstable.Row
		if c.byKey {
			rows, err = users.FindKey(t.Context(), c.text)
		} else {
			rows, err = users.FindUser(t.Context(), c.text, c.outside)
		}
		users.Close()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(rows) == 0 {
			rows = nil
		}
		if diff := cmp.Diff(c.want, rows); diff != "" {
			t.Errorf("%s: rows (-want +got):\n%s", c.name, diff)
		}
	}

	wrong := all
	wrong.UserID = "nothing"
	users, err := userstable.Open(t.Context(), wrong)
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close()
	if _, err := users.FindUser(t.Context(), "anna", false); err == nil || !strings.Contains(err.Error(), "check [users] user_id") {
		t.Errorf("an expression that cannot be: %v", err)
	}
}
