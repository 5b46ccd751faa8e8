package userstable_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"syncer/internal/dev/pgtest"
	"syncer/repo/userstable"
)

// wantLongIDs checks that long ids are stored and described in a few characters.
func wantLongIDs(t *testing.T, all []userstable.UnfitID, want int) {
	t.Helper()
	unfit := map[string]string{}
	for _, u := range all {
		unfit[u.ID] = u.Text
		if len(u.ID) > 120 || len(u.Text) > 400 || !strings.Contains(u.Text, "bytes, more than the 256") {
			t.Errorf("an id of %d bytes, with a text of %d: %s", len(u.ID), len(u.Text), u.Text)
		}
	}
	if len(unfit) != want {
		t.Errorf("%d unfit ids, want %d", len(unfit), want)
	}
}

// TestUsers_long: ids and keys of any length take little memory here. Not parallel,
// because it counts what the process allocates.
func TestUsers_long(t *testing.T) {
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	const rows, idBytes, keyBytes = 60, 4 << 20, 200_000
	pgtest.Exec(t, conn, fmt.Sprintf(`
CREATE TABLE public.users (id text COLLATE "C" PRIMARY KEY, uid text);
INSERT INTO public.users SELECT repeat('k', %d) || to_char(n, 'FM000'), repeat('u', %d - 3) || to_char(n, 'FM000') FROM generate_series(1, %d) AS n;
INSERT INTO public.users VALUES ('a', repeat('é', 128)), ('b', repeat('é', 129)), ('c', ''), ('d', NULL)`, keyBytes, idBytes, rows))
	users := openUsers(t, userstable.Config{URL: url, UserID: "uid"})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	walk := users.Walk("")
	first, more, err := walk.Cut(t.Context(), nil, 5)
	if err != nil || !more || len(first) != keyBytes+3 {
		t.Fatalf("Cut: a key of %d bytes, %t, %v", len(first), more, err)
	}
	page, err := walk.Page(t.Context(), nil, nil, rows-1)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := walk.Page(t.Context(), &page.LastKey, nil, 5000)
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	const enough = 16 << 20
	if n := after.TotalAlloc - before.TotalAlloc; n > enough {
		t.Errorf("reading %d ids of %d bytes allocates %d bytes, want at most %d", rows, idBytes, n, enough)
	}
	got := fmt.Sprint(page.More, page.IDs, page.Bad, rest.More, rest.IDs)
	if want := fmt.Sprint(true, []string{strings.Repeat("é", 128)}, 2, false, []string{}); got != want {
		t.Errorf("two pages, each with whether there are more, and ids: %s, want %s", got, want)
	}
	wantLongIDs(t, append(page.Unfit, rest.Unfit...), rows+1)
	if err := users.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if found, err := users.FindKey(t.Context(), first); err != nil || len(found) != 1 || len(*found[0].Key) > 200 || len(*found[0].UserID) > 300 {
		t.Errorf("FindKey: %d rows, %v", len(found), err)
	}
}
