package main

import (
	"context"
	"fmt"
	"strings"

	"syncer/imclient"
	"syncer/internal/config"
	"syncer/internal/report"
	"syncer/repo/userstable"
)

// sampledUsers is how many rows of a users table config check looks at.
const sampledUsers = 1000

// usersSample is what the first rows of a users table are like.
type usersSample struct {
	rows     int
	like     []string // some ids
	invalid  int      // ids that the provider cannot know
	example  string   // one of these, and why
	missing  int      // NULL or empty ids
	repeated int      // ids that an earlier row has
}

// sampleUsers looks at the ids of a page as a sweep of that provider does.
func sampleUsers(provider imclient.Provider, page userstable.Page) usersSample {
	s := usersSample{rows: page.Rows, missing: page.Bad}
	reject := func(id, why string) {
		if s.invalid++; s.invalid == 1 {
			s.example = fmt.Sprintf("%s (%s)", short(id), why)
		}
	}
	seen := make(map[string]bool)
	for _, id := range page.IDs {
		if seen[id] {
			s.repeated++
			continue
		}
		seen[id] = true
		const examples = 2
		if len(s.like) < examples {
			s.like = append(s.like, short(id))
		}
		if why := providers[provider].checkUserID(id); why != "" {
			reject(id, why)
		}
	}
	for _, unfit := range page.Unfit {
		reject(unfit.ID, unfit.Text)
	}
	return s
}

// short returns the first characters of an id that is too long for a line.
func short(id string) string {
	const most = 60
	if runes := []rune(id); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return id
}

// unusable counts the rows that a sweep cannot ask about.
func (s usersSample) unusable() int { return s.invalid + s.missing }

func (s usersSample) String() string {
	if s.rows == 0 {
		return ""
	}
	text := fmt.Sprintf("; of the first %s: %s invalid, %s NULL or empty, %s duplicate",
		report.Count(int64(s.rows)), report.Count(int64(s.invalid)), report.Count(int64(s.missing)), report.Count(int64(s.repeated)))
	if len(s.like) > 0 {
		text = "; ids like " + strings.Join(s.like, ", ") + text
	}
	return text
}

// usersSize says how many users a table lists.
func usersSize(ctx context.Context, users *userstable.Table) (string, error) {
	n, exact, err := users.Size(ctx)
	if err != nil {
		return "", err
	}
	size := report.Count(n) + " users"
	if n == 1 {
		size = "1 user"
	}
	if !exact {
		size = "about " + size + " (the planner's estimate; counting takes too long)"
	}
	return size, nil
}

// sample prints what a users table holds. The check fails if a sweep could ask about
// no row of the sample.
func (ch *checker) sample(app config.App, size string, s usersSample) {
	where := "app " + app.Name
	what := fmt.Sprintf("%s: users table %s: %s%s", where, usersTable(app.Users), size, s)
	const advice = "correct [users] user_id, or leave such rows out with [users] where"
	switch {
	case s.rows == 0:
		ch.say(what, nil, "")
		ch.warn("%s: there is no user to ask about: check [users] table and where", where)
	case s.unusable() == s.rows && s.invalid == 0:
		ch.say(what, fmt.Errorf("every user would fail: %s", advice), "")
	case s.unusable() == s.rows:
		ch.say(what, fmt.Errorf("every user would fail, such as %s: %s", s.example, advice), "")
	default:
		ch.say(what, nil, "")
		if s.invalid > 0 {
			ch.warn("%s: invalid ids fail one by one, such as %s: %s", where, s.example, advice)
		}
		if s.missing > 0 {
			ch.warn("%s: rows whose id is NULL or empty fail: %s", where, advice)
		}
	}
	if s.repeated > 0 {
		ch.warn("%s: rows with an id that another row has ask about the same user: check [users] user_id, or key_column", where)
	}
}
