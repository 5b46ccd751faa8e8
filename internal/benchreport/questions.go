package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// question is a documented one: the heading that it stands under, and its SQL.
type question struct{ heading, sql string }

// readQuestions returns the questions of a page in Markdown: its blocks of SQL,
// except for those that are no queries.
func readQuestions(page string) []question {
	var all []question
	heading := ""
	times := map[string]int{} // of each heading so far
	blocks := strings.Split(page, "```")
	for i, block := range blocks {
		if i%2 == 0 { // between two blocks
			for line := range strings.Lines(block) {
				if title, ok := strings.CutPrefix(line, "### "); ok {
					heading = strings.TrimSpace(title)
				}
			}
			continue
		}
		sql, ok := strings.CutPrefix(block, "sql\n")
		if !ok || !strings.HasPrefix(sql, "SELECT") && !strings.HasPrefix(sql, "WITH") {
			continue
		}
		times[heading]++
		q := question{heading: heading, sql: sql}
		if n := times[heading]; n > 1 {
			q.heading = fmt.Sprintf("%s (%d)", heading, n)
		}
		all = append(all, q)
	}
	return all
}

// timeQuestions times what the page asks, as it stands there.
func (b *bench) timeQuestions(ctx context.Context) error {
	page, err := os.ReadFile(b.page)
	if err != nil {
		return err
	}
	all := readQuestions(string(page))
	if len(all) == 0 {
		return fmt.Errorf("%s has no question", b.page)
	}
	if err := b.exec(ctx, advised...); err != nil {
		return err
	}
	for _, q := range all {
		if err := b.timeQuery(ctx, "documented questions", q.heading, q.sql); err != nil {
			return err
		}
	}
	return b.exec(ctx, "RESET jit", "RESET work_mem")
}
