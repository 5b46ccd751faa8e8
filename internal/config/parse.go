package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a minimal container has no time zone files
	"unicode/utf8"
)

// parse reads one value into dst. It returns what is wrong, "" if nothing, and never
// repeats the value of a Secret, a DatabaseURL or a ProxyURL.
func parse(dst reflect.Value, tag reflect.StructTag, n *node) string {
	switch p := dst.Addr().Interface().(type) {
	case *time.Duration:
		return parseDuration(p, tag, n)
	case **time.Location:
		return parseLocation(p, n)
	case *Secret, *DatabaseURL, *ProxyURL:
		return parseSecret(dst, tag, n)
	case encoding.TextUnmarshaler:
		return parseText(p, tag, n)
	}
	switch dst.Kind() {
	case reflect.String:
		return parseString(dst, tag, n)
	case reflect.Bool:
		return parseBool(dst, n)
	case reflect.Int, reflect.Int64:
		return parseInt(dst, tag, n)
	case reflect.Float64:
		return parseFloat(dst, tag, n)
	}
	panic(fmt.Sprintf("config: no way to read a %s", dst.Type()))
}

// wrongKind returns the problem of a value of the wrong kind. For the environment,
// whose values are all text, it quotes the text.
func wrongKind(want string, n *node) string {
	if n.kind == kindText {
		return fmt.Sprintf("must be %s, is %s", want, quote(n.text))
	}
	return fmt.Sprintf("must be %s, is %s", want, n.kind)
}

// quote returns a value in quotes, shortened if it is long.
func quote(s string) string {
	return strconv.Quote(cut(s, 60))
}

// cut shortens a text to longest characters.
func cut(s string, longest int) string {
	if r := []rune(s); len(r) > longest {
		return string(r[:longest]) + "…"
	}
	return s
}

// list joins the words of a tag with commas.
func list(words string) string { return strings.Join(strings.Fields(words), ", ") }

func (n *node) isText() bool { return n.kind == kindString || n.kind == kindText }

// mayBeEmpty reports whether "" is a valid value.
func mayBeEmpty(tag reflect.StructTag) bool {
	fallback, ok := tag.Lookup("default")
	_, tagged := tag.Lookup("empty")
	return ok && fallback == "" || tagged
}

// badText returns what is wrong with a text of any meaning, "" if nothing.
func badText(tag reflect.StructTag, text string) string {
	if text == "" && !mayBeEmpty(tag) {
		return "must not be empty"
	}
	if strings.ContainsRune(text, 0) {
		return "must not hold a NUL character" // Postgres does not accept it
	}
	if !utf8.ValidString(text) {
		return "must be valid UTF-8" // as in the file
	}
	return ""
}

func parseString(dst reflect.Value, tag reflect.StructTag, n *node) string {
	if !n.isText() {
		return wrongKind("a string in quotes", n)
	}
	allowed := strings.Fields(tag.Get("allowed"))
	switch {
	case len(allowed) > 0 && !slices.Contains(allowed, n.text) && (n.text != "" || !mayBeEmpty(tag)):
		key, _, _ := strings.Cut(tag.Get("toml"), ",")
		return fmt.Sprintf("unknown %s %s (allowed: %s)", key, quote(n.text), strings.Join(allowed, ", "))
	case badText(tag, n.text) != "":
		return badText(tag, n.text)
	}
	dst.SetString(n.text)
	return ""
}

func parseSecret(dst reflect.Value, tag reflect.StructTag, n *node) string {
	if !n.isText() {
		return wrongKind("a string in quotes", n)
	}
	if text := badText(tag, n.text); text != "" {
		return text
	}
	value := reflect.New(dst.Type()).Elem()
	value.SetString(n.text)
	if address, ok := value.Interface().(interface{ problem() string }); ok && n.text != "" {
		if text := address.problem(); text != "" {
			return text
		}
	}
	dst.Set(value)
	return ""
}

func parseText(dst encoding.TextUnmarshaler, tag reflect.StructTag, n *node) string {
	if !n.isText() {
		return wrongKind("a string in quotes", n)
	}
	if text := badText(tag, n.text); text != "" || n.text == "" {
		return text
	}
	if err := dst.UnmarshalText([]byte(n.text)); err != nil {
		return err.Error()
	}
	return ""
}

func parseBool(dst reflect.Value, n *node) string {
	if n.kind != kindBool && n.kind != kindText || n.text != "true" && n.text != "false" {
		return wrongKind("true or false", n)
	}
	dst.SetBool(n.text == "true")
	return ""
}

func parseInt(dst reflect.Value, tag reflect.StructTag, n *node) string {
	if n.kind != kindInteger && n.kind != kindText {
		return wrongKind("a whole number", n)
	}
	i, err := strconv.ParseInt(n.text, 0, 64) // 0x, 0o, 0b and _ mean the same in TOML and Go
	if err != nil {
		return wrongKind("a whole number", &node{kind: kindText, text: n.text})
	}
	dst.SetInt(i)
	return outside(tag, n.text, i, func(s string) int64 { v, _ := strconv.ParseInt(s, 10, 64); return v })
}

func parseFloat(dst reflect.Value, tag reflect.StructTag, n *node) string {
	if n.kind != kindFloat && n.kind != kindInteger && n.kind != kindText {
		return wrongKind("a number", n)
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(n.text, "_", ""), 64)
	if err != nil || math.IsNaN(f) {
		return wrongKind("a number", &node{kind: kindText, text: n.text})
	}
	dst.SetFloat(f)
	return outside(tag, n.text, f, func(s string) float64 { v, _ := strconv.ParseFloat(s, 64); return v })
}

func parseDuration(dst *time.Duration, tag reflect.StructTag, n *node) string {
	const want = `a duration in quotes, such as "90s", "8h30m" or "400d"`
	if !n.isText() {
		return wrongKind(want, n)
	}
	if n.text == "" && mayBeEmpty(tag) {
		*dst = 0
		return ""
	}
	d, err := duration(n.text)
	if err != nil {
		return wrongKind(want, &node{kind: kindText, text: n.text})
	}
	*dst = d
	return outside(tag, n.text, d, func(s string) time.Duration { v, _ := duration(s); return v })
}

// outside returns the problem of a value beyond the bounds of its tag, "" if there is
// none.
func outside[T int64 | float64 | time.Duration](tag reflect.StructTag, text string, v T, read func(string) T) string {
	lowest, highest := tag.Get("min"), tag.Get("max")
	if v < read(lowest) || v > read(highest) {
		return fmt.Sprintf("must be between %s and %s, is %s", lowest, highest, text)
	}
	return ""
}

var longUnit = regexp.MustCompile(`^(\d{1,6})([wd])`)

// duration parses whole weeks and days, then what time.ParseDuration accepts: "400d",
// "1w12h". A day is 24 hours.
func duration(s string) (time.Duration, error) {
	var days int64
	rest := s
	for {
		m := longUnit.FindStringSubmatch(rest)
		if m == nil {
			break
		}
		count, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			return 0, err
		}
		if m[2] == "w" {
			count *= 7
		}
		days += count
		rest = rest[len(m[0]):]
	}
	var d time.Duration
	if rest != "" || s == "" {
		var err error
		if d, err = time.ParseDuration(rest); err != nil {
			return 0, err
		}
	}
	const day = 24 * time.Hour
	if d < 0 && days > 0 || days > int64((math.MaxInt64-max(d, 0))/day) {
		return 0, fmt.Errorf("duration %q is out of range", s)
	}
	return time.Duration(days)*day + d, nil
}

func parseLocation(dst **time.Location, n *node) string {
	if !n.isText() {
		return wrongKind(`a time zone in quotes, such as "UTC" or "Asia/Singapore"`, n)
	}
	zone, err := Location(n.text)
	if err != nil {
		return err.Error()
	}
	*dst = zone
	return ""
}

// abbreviations are names that Postgres reads as a fixed offset and Go as a zone with
// summer time.
var abbreviations = map[string]string{
	"CET": "Europe/Brussels", "EET": "Europe/Athens", "MET": "Europe/Brussels", "WET": "Europe/Lisbon",
}

// Location returns a zone of the tz database by name. The machine's own zone is
// rejected, because it can differ between instances.
func Location(name string) (*time.Location, error) {
	if city, ok := abbreviations[name]; ok {
		return nil, fmt.Errorf("time zone %s means summer time to some programs and not to others; name a city instead, such as %q", quote(name), city)
	}
	if name != "" && name != "Local" {
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	return nil, fmt.Errorf(`unknown time zone %s (allowed: names of the tz database, such as "UTC" or "Asia/Singapore")`, quote(name))
}
