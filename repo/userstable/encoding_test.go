package userstable_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"syncer/internal/dev/pgtest"
	"syncer/repo/userstable"
)

// readAll reads a table in ranges and pages. It returns the ids, and the texts of unfit ids.
func readAll(t *testing.T, users *userstable.Table, rangeSize, pageSize int) (ids []string, unfit map[string]string) {
	t.Helper()
	unfit = map[string]string{}
	walk := users.Walk("")
	var after, upper *string
	for more := true; more; {
		var upto string
		var err error
		if upto, more, err = walk.Cut(t.Context(), after, rangeSize); err != nil {
			t.Fatal(err)
		}
		if upper = &upto; !more {
			upper = nil
		}
		for inRange := true; inRange; {
			page, err := walk.Page(t.Context(), after, upper, pageSize)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, page.IDs...)
			for _, u := range page.Unfit {
				unfit[u.ID] = u.Text
			}
			after, inRange = &page.LastKey, page.More
		}
	}
	return ids, unfit
}

// wantUnfit checks that one of the unfit ids is shown in a way.
func wantUnfit(t *testing.T, unfit map[string]string, shown string) {
	t.Helper()
	for id, text := range unfit {
		if strings.HasPrefix(id, shown+"…") && strings.Contains(text, "not text in UTF-8") && strings.Contains(text, "key "+shown) {
			return
		}
	}
	t.Errorf("none of the unfit ids %q is %s", unfit, shown)
}

// TestUsers_encodings: ids arrive as text whatever the database's encoding is. One that
// is none fails alone; a key that is none still serves for paging.
func TestUsers_encodings(t *testing.T) {
	t.Parallel()
	// Bytes of the ids that are not ASCII, in hexadecimal.
	for encoding, test := range map[string]struct {
		text  map[string]string // and what they are
		unfit map[string]string // and how they are shown
	}{
		"LATIN1":    {text: map[string]string{"4a6f73e9": "José", "c3a9": "Ã©"}},
		"SQL_ASCII": {text: map[string]string{"5a6fc3ab": "Zoë"}, unfit: map[string]string{"4a6f73e9": `Jos\xe9`, "c3": `\xc3`}},
		"WIN1252":   {text: map[string]string{"80": "€"}, unfit: map[string]string{"4a81": `J\x81`, "9d80": `\x9d\x80`}},
		"EUC_JP":    {text: map[string]string{"c6fc": "日"}, unfit: map[string]string{"61fcfe": `a\xfc\xfe`}},
	} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			url := pgtest.DatabaseIn(t, encoding)
			conn := pgtest.Connect(t, url)
			pgtest.Exec(t, conn, `CREATE TABLE public.users (id text PRIMARY KEY); INSERT INTO public.users SELECT 'u' || n FROM generate_series(1, 997) AS n`)
			var want []string
			for n := range 997 {
				want = append(want, fmt.Sprintf("u%d", n+1))
			}
			for raw, text := range test.text {
				pgtest.Exec(t, conn, `INSERT INTO public.users VALUES (convert_from(decode($1, 'hex'), getdatabaseencoding()))`, raw)
				want = append(want, text)
			}
			for raw := range test.unfit {
				pgtest.Exec(t, conn, `INSERT INTO public.users VALUES (convert_from(decode($1, 'hex'), getdatabaseencoding()))`, raw)
			}
			slices.Sort(want)
			users := openUsers(t, userstable.Config{URL: url})
			for _, limit := range []int{1, 100, 2000} {
				got, unfit := readAll(t, users, 450, limit)
				slices.Sort(got)
				if diff := gocmp.Diff(want, got); diff != "" {
					t.Errorf("pages of %d (-want +got):\n%s", limit, diff)
				}
				if len(unfit) != len(test.unfit) {
					t.Errorf("pages of %d: unfit ids %q", limit, unfit)
				}
				for _, shown := range test.unfit {
					wantUnfit(t, unfit, shown)
				}
			}
			// A user is found in it, with a key that is shown.
			for _, id := range append([]string{"u5"}, want[len(want)-1]) {
				rows, err := users.FindUser(t.Context(), id, false)
				if err != nil || len(rows) != 1 || *rows[0].UserID != id {
					t.Errorf("FindUser of %s: %v, %v", id, rows, err)
				}
			}
			if rows, err := users.FindUser(t.Context(), "Ж", false); err != nil || len(rows) > 0 {
				t.Errorf("FindUser of a text that the encoding has not: %v, %v", rows, err)
			}
		})
	}
}

// TestUsers_clientEncoding: text is exchanged in UTF-8, whatever role and database are set to.
func TestUsers_clientEncoding(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `
CREATE TABLE public.users (id text PRIMARY KEY);
INSERT INTO public.users VALUES ('Zoë'), ('北京'), ('u1')`)
	name := pgtest.Value[string](t, conn, `SELECT current_database()`)
	for _, encoding := range []string{"latin1", "GBK", "SQL_ASCII", "SJIS"} {
		pgtest.Exec(t, conn, `ALTER DATABASE `+name+` SET client_encoding = `+encoding)
		for _, url := range []string{url, pgtest.WithParameters(t, url, "client_encoding", encoding)} {
			users := openUsers(t, userstable.Config{URL: url, Where: "id <> 'ü'"})
			got := walkPages(t, users, nil, nil, 1)
			slices.Sort(got)
			if diff := gocmp.Diff([]string{"Zoë", "u1", "北京"}, got); diff != "" {
				t.Errorf("client_encoding = %s (-want +got):\n%s", encoding, diff)
			}
		}
	}
}
