package jobs

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

// What nobody may ever read in a log, a row or an error.
const (
	simKey    = "SIMKEY5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5"
	simSecret = "SIMSECRETofTheServer"
)

// secrets finds those, what the simulator's answers are marked with, UserSigs
// (zlib in base64) and tokens (JWT).
var secrets = regexp.MustCompile(`SIM(KEY|SECRET|TOKEN|CONN)|eJ[w-z][A-Za-z0-9*_%-]{20}|eyJ[A-Za-z0-9_-]{10}`)

// lookForSecrets looks through the log and every column of text of every table.
func (w *world) lookForSecrets() {
	w.ctx = context.WithoutCancel(w.ctx)
	password := regexp.MustCompile(`:([^:@/]+)@`).FindStringSubmatch(w.url)[1]
	log := w.log.String()
	if found := secrets.FindString(log); found != "" || strings.Contains(log, password) {
		w.t.Errorf("the log holds the secret %s, or the database's password", found)
	}
	const columnsSQL = `
SELECT format('SELECT %L, %I::text FROM syncer.%I WHERE %I IS NOT NULL', table_name || '.' || column_name, column_name, table_name, column_name)
FROM information_schema.columns
WHERE table_schema = 'syncer' AND data_type IN ('text', 'character varying', 'json', 'jsonb', 'bytea', 'ARRAY')
  AND table_name NOT LIKE '%\_history' AND table_name NOT LIKE '%\_snapshot'`
	type cell struct{ Column, Text string }
	for _, sql := range query(w, pgx.RowTo[string], columnsSQL) {
		for _, c := range query(w, pgx.RowToStructByPos[cell], sql) {
			if found := secrets.FindString(c.Text); found != "" || strings.Contains(c.Text, password) {
				w.t.Errorf("%s holds the secret %s, or the database's password, in %q", c.Column, found, c.Text)
			}
		}
	}
}

// logBuffer collects the log of all engines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() zerolog.Logger { return zerolog.New(l).With().Timestamp().Logger() }

// lines gives the lines that hold all of the words.
func (l *logBuffer) lines(words ...string) []string {
	var found []string
line:
	for line := range strings.Lines(l.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue line
			}
		}
		found = append(found, line)
	}
	return found
}

// tail gives the last lines above debug, for a test that fails.
func (l *logBuffer) tail() string {
	var kept []string
	for line := range strings.Lines(l.String()) {
		if !strings.Contains(line, `"level":"debug"`) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-20):], "")
}
