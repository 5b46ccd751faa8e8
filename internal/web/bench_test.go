package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"syncer/internal/dev/pgtest"
	"syncer/repo/reports"
)

// BenchmarkPresence compares answers about users with the lookup of their rows alone.
func BenchmarkPresence(b *testing.B) {
	s := newSite(b, nil)
	pgtest.Exec(b, s.conn, `
INSERT INTO syncer.presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since, since_after)
SELECT 1, 'user' || lpad(n::text, 6, '0'), 'online', '{"ios": "online"}', '2026-11-22 08:00:00.123Z', '2026-11-22 08:00Z', 1, '2026-11-22 08:00:00.123Z', '2026-11-22 07:30Z' FROM generate_series(1, 20000) AS n`)
	pgtest.Exec(b, s.conn, `ANALYZE`)
	for _, n := range []int{1, 500} {
		q := url.Values{"app": {"main"}}
		for i := range n {
			q.Add("user", fmt.Sprintf("user%06d", 1+37*i%20000))
		}
		b.Run(fmt.Sprintf("rows/%d", n), func(b *testing.B) {
			for b.Loop() {
				if rows, err := reports.Presence(b.Context(), s.db, reports.Observed{AppID: 1}, q["user"]); err != nil || len(rows) != n {
					b.Fatal(len(rows), err)
				}
			}
		})
		b.Run(fmt.Sprintf("answer/%d", n), func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "/v1/presence?"+q.Encode(), nil)
			r.Host = "127.0.0.1:9465"
			for b.Loop() {
				w := &recorder{ResponseWriter: discard{}, status: http.StatusOK}
				s.handler.ServeHTTP(w, r)
				if w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			}
		})
	}
}
