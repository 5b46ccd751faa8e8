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

// setting is a setting of the configuration, given or not.
type setting struct {
	path  string
	value reflect.Value
}

// Print writes every setting of the configuration that Load would return, as TOML,
// each with the origin of its value. Secrets are masked.
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
	const widest = 60 // longer lines do not move the remarks of others
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

// sectionHeader returns the header of a section.
func sectionHeader(path string) string {
	if strings.HasSuffix(path, "]") {
		return "[[" + unindexed(path) + "]]"
	}
	return "[" + unindexed(path) + "]"
}

// shown returns a value in TOML.
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

// tomlQuote returns a text as a TOML string, which lacks some of Go's escapes.
// Invalid UTF-8 cannot be represented.
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

// origin returns where a setting's value comes from.
func (b *binder) origin(path string) string {
	at, given := b.at[path]
	if !given {
		// Settings that an app's users section omits come from [users].
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
		return at.env // its name ends in _FILE for a file
	case at.line == 0:
		return "default"
	default:
		return fmt.Sprintf("%s:%d%s", b.file, at.line, how)
	}
}
