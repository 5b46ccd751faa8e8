package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// binder fills the structs of this package from a TOML document and the environment,
// and collects problems. It learns keys, defaults and bounds from the structs' tags.
type binder struct {
	file string // as shown in problems
	dir  string // the file's folder, to which secret files are relative

	env    map[string]string // variables that no setting has taken yet
	envAll []string          // the names of all possible variables

	at       map[string]pos  // the position of each given key
	bad      map[string]bool // keys with a problem; only one is reported for each
	problems Problems

	exposed  []string // keys of secrets in the file itself
	warnings []string // about secret files

	settings []setting // all of them, in the order of the structs
}

// problem records a problem of the setting or section at path.
func (b *binder) problem(path, format string, args ...any) {
	for p := path; p != ""; p = parent(p) {
		if b.bad[p] { // inside a section that has a problem itself
			return
		}
	}
	b.bad[path] = true
	p := Problem{Key: path, Text: fmt.Sprintf(format, args...)}
	at := b.place(path)
	if at.env != "" {
		p.Var = at.env
	} else {
		p.File, p.Line = b.file, at.line
	}
	b.problems = append(b.problems, p)
}

// place returns the position of path or, if path is not given, of its section.
func (b *binder) place(path string) pos {
	for ; path != ""; path = parent(path) {
		if at, ok := b.at[path]; ok {
			return at
		}
	}
	return pos{}
}

// parent returns the section that contains a setting or section, "" at the top.
func parent(path string) string { return path[:max(strings.LastIndexByte(path, '.'), 0)] }

// field is a struct field with a key.
type field struct {
	key   string
	value reflect.Value
	tag   reflect.StructTag
	file  bool // <key>_file is a key too
	noEnv bool
}

func fields(v reflect.Value) []field {
	var fs []field
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		name, ok := tag.Lookup("toml")
		if !ok {
			continue
		}
		key, option, _ := strings.Cut(name, ",")
		fs = append(fs, field{key: key, value: v.Field(i), tag: tag, file: option == "file", noEnv: option == "noenv"})
	}
	return fs
}

// section fills a struct. env is the prefix of its variables' names, "" if the
// environment cannot set it.
func (b *binder) section(dst reflect.Value, n *node, path, env string) {
	if n != nil && n.kind != kindSection {
		b.at[path] = n.pos
		b.problem(path, "must be a section, written [%s], is %s", unindexed(path), n.kind)
		n = nil
	}
	if n != nil && path != "" {
		b.at[path] = n.pos
	}
	var known []string
	for _, f := range fields(dst) {
		known = append(known, f.key)
		if f.file {
			known = append(known, f.key+"_file")
		}
		inner, innerEnv := join(path, f.key), envName(env, f.key)
		if f.noEnv {
			innerEnv = ""
		}
		switch kindOf(f.value) {
		case reflect.Struct:
			b.section(f.value, n.get(f.key), inner, innerEnv)
		case reflect.Pointer:
			b.optional(f.value, n.get(f.key), inner, innerEnv)
		case reflect.Slice:
			b.list(f.value, n.get(f.key), inner, innerEnv)
		default:
			b.setting(f, n, inner, innerEnv)
		}
	}
	b.unknownKeys(n, known)
}

// kindOf returns the kind of a struct, an optional struct or a list of structs, and
// reflect.Invalid for a setting, even one that is a struct itself.
func kindOf(v reflect.Value) reflect.Kind {
	t := v.Type()
	k := t.Kind()
	if k == reflect.Pointer || k == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[Config]().PkgPath() && t != reflect.TypeFor[Table]() {
		return k
	}
	return reflect.Invalid
}

// optional fills a section that exists only if the file or environment sets part of
// it.
func (b *binder) optional(dst reflect.Value, n *node, path, env string) {
	if n == nil {
		inEnv := b.envUnder(env)
		if inEnv == "" {
			return
		}
		b.at[path] = pos{env: inEnv}
	}
	dst.Set(reflect.New(dst.Type().Elem()))
	b.section(dst.Elem(), n, path, env)
}

// list fills a list of sections. The name of a section selects its variables.
func (b *binder) list(dst reflect.Value, n *node, path, env string) {
	if n == nil {
		return
	}
	b.at[path] = n.pos
	isSection := func(item *node) bool { return item.kind == kindSection }
	if n.kind != kindList || slices.ContainsFunc(n.items, func(item *node) bool { return !isSection(item) }) {
		b.problem(path, "must be written [[%s]], once for each", path)
		return
	}
	dst.Set(reflect.MakeSlice(dst.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		itemEnv := ""
		if name := item.get("name"); name != nil && namePattern.MatchString(name.text) {
			itemEnv = envName(env, name.text)
		}
		b.section(dst.Index(i), item, fmt.Sprintf("%s[%d]", path, i), itemEnv)
	}
}

// setting fills one setting from the environment, the file or its default.
func (b *binder) setting(f field, n *node, path, env string) {
	b.settings = append(b.settings, setting{path: path, value: f.value})
	value := b.given(n, f.key, env)
	if f.file {
		var ok bool
		if value, ok = b.secret(f, value, n, path, env); !ok {
			return
		}
	}
	if value != nil {
		b.at[path] = value.pos
	} else {
		text, ok := f.tag.Lookup("default")
		if !ok {
			b.problem(path, "%s", required(f, env))
			return
		}
		value = &node{kind: kindText, text: text}
	}
	if text := parse(f.value, f.tag, value); text != "" {
		b.problem(path, "%s", text)
	}
}

func required(f field, env string) string {
	switch allowed := f.tag.Get("allowed"); {
	case f.file && env != "":
		return fmt.Sprintf("is missing: give %s, %s_file or the environment variable %s", f.key, f.key, env)
	case f.file:
		return fmt.Sprintf("is missing: give %s or %s_file", f.key, f.key)
	case allowed != "":
		return fmt.Sprintf("is missing (allowed: %s)", list(allowed))
	default:
		return "is missing"
	}
}

// given returns a setting's value: from the environment, else from the file, else
// nil.
func (b *binder) given(n *node, key, env string) *node {
	if env != "" {
		b.envAll = append(b.envAll, env)
		if text, ok := b.env[env]; ok {
			delete(b.env, env)
			return &node{kind: kindText, pos: pos{env: env}, text: text}
		}
	}
	return n.get(key)
}

// unknownKeys reports the keys of a section that are not settings.
func (b *binder) unknownKeys(n *node, known []string) {
	if n == nil {
		return
	}
	for _, key := range n.keys {
		if slices.Contains(known, key) {
			continue
		}
		found := n.get(key)
		b.at[found.path] = found.pos
		what := "key"
		if found.kind == kindSection || found.kind == kindList {
			what = "section"
		}
		if meant := Nearest(key, known); meant != "" {
			b.problem(found.path, "unknown %s; did you mean %q?", what, meant)
		} else {
			b.problem(found.path, "unknown %s (allowed here: %s)", what, strings.Join(known, ", "))
		}
	}
}

var indexes = regexp.MustCompile(`\[\d+\]`)

// unindexed converts a path to the text of a section header.
func unindexed(path string) string { return indexes.ReplaceAllString(path, "") }
