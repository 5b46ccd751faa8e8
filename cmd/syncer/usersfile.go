package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"syncer/internal/report"
	"syncer/jobs"
)

// readUsersFile reads user ids, one per line. It ignores blank lines, surrounding spaces and
// a byte order mark. It returns nil for "".
func readUsersFile(path string) (map[string]bool, error) {
	if path == "" {
		return nil, nil
	}
	var in io.Reader = os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, usageError("--users-file: %w", err)
		}
		defer file.Close()
		in = file
	}
	wanted := map[string]bool{}
	lines := bufio.NewScanner(in)
	for first := true; lines.Scan(); first = false {
		line := lines.Text()
		if first {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if id := strings.TrimSpace(line); id != "" {
			wanted[id] = true
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("--users-file %s: %w", path, err)
	}
	if len(wanted) == 0 {
		return nil, usageError("--users-file %s holds no user id", path)
	}
	return wanted, nil
}

// matchListed limits the sweeps to the wanted users that are in the users tables. It drops
// a sweep without any.
func matchListed(ctx context.Context, engine *jobs.Engine, sweeps []*sweep, wanted map[string]bool) ([]*sweep, error) {
	type match struct {
		found []string
		note  string
	}
	matches := map[int16]match{}
	var kept []*sweep
	for _, s := range sweeps {
		m, known := matches[s.app.ID]
		if !known {
			found, missing, err := engine.MatchListed(ctx, s.app.ID, wanted)
			if err != nil {
				return nil, fmt.Errorf("app %s: %w", s.app.Name, err)
			}
			m.found = found
			if missing > 0 {
				m.note = fmt.Sprintf("listed ids that are not in users table %s: %s", s.app.Users.Name(), report.Count(int64(missing)))
			}
			matches[s.app.ID] = m
		}
		if len(m.found) > 0 {
			s.listed, s.note = m.found, m.note
			kept = append(kept, s)
		}
	}
	if len(kept) == 0 {
		return nil, fmt.Errorf("none of the %d listed ids is in the users table: check --users-file, and [users] user_id and where", len(wanted))
	}
	return kept, nil
}
