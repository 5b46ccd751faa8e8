package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"
)

// Table is the name of a table in the users' database.
type Table struct {
	Schema string // "": the connection's search_path applies
	Name   string
}

// IsZero reports whether no table is named.
func (t Table) IsZero() bool { return t.Name == "" }

// String returns the name as quoted SQL: "public"."users".
func (t Table) String() string {
	if t.Schema == "" {
		return pgx.Identifier{t.Name}.Sanitize()
	}
	return pgx.Identifier{t.Schema, t.Name}.Sanitize()
}

// UnmarshalText parses table or schema.table as SQL does: unquoted names become lower
// case.
func (t *Table) UnmarshalText(text []byte) error {
	parts, err := identifiers(string(text))
	if err != nil || len(parts) > 2 {
		return fmt.Errorf(`%s is no table's name (want table or schema.table; unusual names quoted, as in public."Users")`, quote(string(text)))
	}
	*t = Table{Name: parts[len(parts)-1]}
	if len(parts) == 2 {
		t.Schema = parts[0]
	}
	return nil
}

// Identifier is the name of a column, without quotes.
type Identifier string

// String returns the name as quoted SQL: "id".
func (i Identifier) String() string { return pgx.Identifier{string(i)}.Sanitize() }

// UnmarshalText parses one identifier as SQL does.
func (i *Identifier) UnmarshalText(text []byte) error {
	parts, err := identifiers(string(text))
	if err != nil || len(parts) != 1 {
		return fmt.Errorf(`%s is no column's name (want one name; an unusual one quoted, as in "userId"); expressions belong in user_id`, quote(string(text)))
	}
	*i = Identifier(parts[0])
	return nil
}

// maxIdentifier is the longest name in Postgres, in bytes. It truncates longer names
// without an error, so that they could mean another table.
const maxIdentifier = 63

var errIdentifier = errors.New("no identifier")

// identifiers splits names joined by dots: quoted ones unchanged, others in lower
// case.
func identifiers(s string) ([]string, error) {
	var parts []string
	for {
		var name string
		var err error
		if strings.HasPrefix(s, `"`) {
			name, s, err = quotedIdentifier(s[1:])
		} else {
			name, s, err = plainIdentifier(s)
		}
		if err != nil || name == "" || len(name) > maxIdentifier || strings.ContainsRune(name, 0) {
			return nil, errIdentifier
		}
		parts = append(parts, name)
		if s == "" {
			return parts, nil
		}
		if s[0] != '.' {
			return nil, errIdentifier
		}
		s = s[1:]
	}
}

// quotedIdentifier reads to the closing quote; a doubled quote is one.
func quotedIdentifier(s string) (name, rest string, err error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `"`)
		if !found {
			return "", "", errIdentifier
		}
		b.WriteString(before)
		if !strings.HasPrefix(after, `"`) {
			return b.String(), after, nil
		}
		b.WriteByte('"')
		s = after[1:]
	}
}

func plainIdentifier(s string) (name, rest string, err error) {
	end := strings.IndexFunc(s, func(r rune) bool {
		return r != '_' && r != '$' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	if end < 0 {
		end = len(s)
	}
	name, rest = s[:end], s[end:]
	if name == "" || name[0] == '$' || name[0] >= '0' && name[0] <= '9' {
		return "", "", errIdentifier
	}
	// Only ASCII: for other letters Postgres depends on its locale.
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name), rest, nil
}
