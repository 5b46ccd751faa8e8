package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration. Its text contains no
// secret and no database password.
type Problem struct {
	// File is as given to Load; "" for a problem of the environment.
	File string
	// Line is 0 if something is missing.
	Line int
	// Column, in characters, is set only for text that is not TOML.
	Column int
	// Var is the environment variable with the value, "" if it is from the file.
	Var string
	// Key is the setting, e.g. "apps[0].tencent.region"; "" for text that is not TOML
	// and for an unknown variable.
	Key string
	// Text says what is wrong and what is allowed.
	Text string
}

// String returns the problem in one line: config.toml:12: apps[0].tencent.region:
// unknown region "x" (allowed: …).
func (p Problem) String() string {
	parts := make([]string, 0, 3)
	switch {
	case p.Var != "":
		parts = append(parts, p.Var)
	case p.Column > 0:
		parts = append(parts, fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column))
	case p.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", p.File, p.Line))
	default:
		parts = append(parts, p.File)
	}
	if p.Key != "" {
		parts = append(parts, p.Key)
	}
	return strings.Join(append(parts, p.Text), ": ")
}

// Problems are all problems of a configuration, as an error: those with a line, in
// order, then missing settings, then the environment's.
type Problems []Problem

// Error returns the problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sort() {
	group := func(p Problem) int {
		switch {
		case p.Var != "":
			return 2
		case p.Line == 0:
			return 1
		default:
			return 0
		}
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(group(a), group(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Var, b.Var))
	})
}

// Nearest returns the candidate of which name is most likely a misspelling, or "".
func Nearest(name string, candidates []string) string {
	const tooFar = 4
	best, bestDistance := "", min(len(name)/3+1, tooFar)
	for _, c := range candidates {
		if d := distance(name, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance returns the number of letters to insert, delete, replace or swap with a
// neighbour to turn a into b.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			row[j+1] = last[j]
			if a[i] != b[j] {
				row[j+1] = 1 + min(last[j], last[j+1], row[j])
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
