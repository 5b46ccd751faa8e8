package config

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// setting is a setting of the configuration, whether it is given or not.
type setting struct {
	path  string
	value reflect.Value
}

// Print writes every setting of the configuration that Load makes of the same,
// as TOML, each with where its value comes from. Of secrets it shows that they
// are there.
func Print(w io.Writer, path string, environ []string) error {
	data, err := readBounded(path, maxFile)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	b, _, err := bind(path, data, environ)
	if err != nil {
		return err
	}
	section, longest := "", 0
	lines := make([]string, len(b.settings))
	for i, s := range b.settings {
		lines[i] = s.path[strings.LastIndexByte(s.path, '.')+1:] + " = " + shown(s.value)
		longest = max(longest, len([]rune(lines[i])))
	}
	const widest = 60 // a longer line than this moves no other's remark
	width := min(longest, widest)
	for i, s := range b.settings {
		if in := parent(s.path); in != section {
			section = in
			if _, err := fmt.Fprintf(w, "%s\n", sectionHeader(in)); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "%-*s  # %s\n", width, lines[i], b.origin(s.path)); err != nil {
			return err
		}
	}
	return nil
}

// sectionHeader is how a section begins in a file.
func sectionHeader(path string) string {
	if strings.HasSuffix(path, "]") {
		return "[[" + unindexed(path) + "]]"
	}
	return "[" + unindexed(path) + "]"
}

// shown is a value as it would stand in a file.
func shown(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		if x == 0 {
			return `""`
		}
		return tomlQuote(x.String())
	case *time.Location:
		return tomlQuote(x.String())
	case Secret:
		if x == "" {
			return `""`
		}
		return tomlQuote(x.String())
	case Identifier:
		return tomlQuote(x.String())
	case Table:
		if x.IsZero() {
			return `""`
		}
		return tomlQuote(x.String())
	case encoding.TextMarshaler:
		text, err := x.MarshalText()
		if err != nil {
			return tomlQuote(err.Error())
		}
		return tomlQuote(string(text))
	}
	if v.Kind() == reflect.String {
		return tomlQuote(v.String())
	}
	return fmt.Sprint(v.Interface())
}

// tomlQuote writes a text as a string of TOML, in which some of Go's escapes are
// unknown. What is no UTF-8 cannot be written.
func tomlQuote(s string) string {
	b := []byte{'"'}
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r <= 0xffff:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\U%08x`, r)
		}
	}
	return string(append(b, '"'))
}

// origin says where a setting's value comes from.
func (b *binder) origin(path string) string {
	at, given := b.at[path]
	if !given {
		// What an app does not say of its users, [users] does.
		if app, key, ok := strings.Cut(path, "].users."); ok && strings.HasPrefix(app, "apps[") {
			return "as in [users] " + key
		}
		return "default"
	}
	how := ""
	if _, fromFile := b.at[path+"_file"]; fromFile {
		how = ", by " + path[strings.LastIndexByte(path, '.')+1:] + "_file"
	}
	switch {
	case at.env != "":
		return at.env // a variable's name ends in _FILE itself
	case at.line == 0:
		return "default"
	default:
		return fmt.Sprintf("%s:%d%s", b.file, at.line, how)
	}
}
