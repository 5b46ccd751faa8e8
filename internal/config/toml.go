package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
)

// kind is the kind of a node.
type kind string

// The kinds, worded for problems.
const (
	kindSection kind = "a section"
	kindList    kind = "a list"
	kindString  kind = "a string"
	kindInteger kind = "a whole number"
	kindFloat   kind = "a number"
	kindBool    kind = "true or false"
	kindTime    kind = "a date or time"
	// kindText is a value from the environment or a default, whose kind is not known.
	kindText kind = "text"
)

// pos is the position of a value: a line of the file or a variable.
type pos struct {
	line int
	env  string
}

// node is a value, section or list of a TOML document, with its position. A nil node
// is missing.
type node struct {
	kind kind
	pos  pos
	path string // e.g. "apps[0].tencent"
	text string // of a string its value, of other scalars the source text

	keys  []string // of a section, in file order
	table map[string]*node
	items []*node // of a list

	origin origin
}

// origin is what created a section or list, because TOML allows only some to be
// extended.
type origin uint8

const (
	originParent origin = iota // the header of a child
	originHeader               // its own header
	originDotted               // a dotted key
	originValue                // an inline table or array, which is complete
)

func newSection(line int, o origin) *node {
	return &node{kind: kindSection, pos: pos{line: line}, table: map[string]*node{}, origin: o}
}

// get returns the value of a key, nil if there is none.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	return n.table[key]
}

func (n *node) put(key string, v *node) {
	v.path = join(n.path, key)
	n.keys = append(n.keys, key)
	n.table[key] = v
}

// join returns the path of a key.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// add appends a section to a list.
func (n *node) add(section *node) {
	section.path = fmt.Sprintf("%s[%d]", n.path, len(n.items))
	n.items = append(n.items, section)
}

// document reads TOML into a tree. The problems are either one syntax error with its
// column, or all keys and sections that are given twice.
type document struct {
	file     string
	parser   unstable.Parser
	data     []byte
	root     *node
	problems Problems
}

func readDocument(file string, data []byte) *document {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	// The parser derives positions from the slice's capacity, which must be its
	// length.
	d := &document{file: file, data: slices.Clip(bytes.Clone(data)), root: newSection(0, originHeader)}
	d.parser.Reset(d.data)
	current := d.root
	for d.parser.NextExpression() {
		switch e := d.parser.Expression(); e.Kind {
		case unstable.Table:
			current = d.header(e)
		case unstable.ArrayTable:
			current = d.listHeader(e)
		case unstable.KeyValue:
			d.keyValue(current, e)
		}
	}
	if err := d.parser.Error(); err != nil {
		d.root = nil
		d.problems = Problems{d.syntax(err)}
	}
	return d
}

// syntax returns the problem of a parser error, whose text is fixed except for at
// most one character of the file.
func (d *document) syntax(err error) Problem {
	p := Problem{File: d.file, Line: 1, Column: 1, Text: "this is not TOML: " + err.Error()}
	if e, ok := errors.AsType[*unstable.ParserError](err); ok {
		before := d.data[:min(cap(d.data)-cap(e.Highlight), len(d.data))]
		p.Line = 1 + bytes.Count(before, []byte("\n"))
		p.Column = 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	}
	return p
}

// part is one part of a dotted key.
type part struct {
	name string
	line int
}

func (d *document) key(e *unstable.Node) []part {
	var parts []part
	for it := e.Key(); it.Next(); {
		k := it.Node()
		line := 1 + bytes.Count(d.data[:k.Raw.Offset], []byte("\n"))
		parts = append(parts, part{name: string(k.Data), line: line})
	}
	return parts
}

// header opens [a.b.c]. After a wrong header, which is reported, the following keys
// go to a section outside of the tree.
func (d *document) header(e *unstable.Node) *node {
	parts := d.key(e)
	parent := d.descend(d.root, parts[:len(parts)-1], originParent)
	last := parts[len(parts)-1]
	if parent == nil {
		return newSection(last.line, originHeader)
	}
	known := parent.get(last.name)
	switch {
	case known == nil:
		n := newSection(last.line, originHeader)
		parent.put(last.name, n)
		return n
	case known.kind == kindSection && known.origin == originParent:
		known.origin, known.pos.line = originHeader, last.line
		return known
	}
	d.twice(known, last.line)
	return newSection(last.line, originHeader)
}

// listHeader opens the next element of [[a.b]].
func (d *document) listHeader(e *unstable.Node) *node {
	parts := d.key(e)
	parent := d.descend(d.root, parts[:len(parts)-1], originParent)
	last := parts[len(parts)-1]
	n := newSection(last.line, originHeader)
	if parent == nil {
		return n
	}
	known := parent.get(last.name)
	switch {
	case known == nil:
		list := &node{kind: kindList, pos: n.pos, origin: originHeader}
		parent.put(last.name, list)
		list.add(n)
	case known.kind == kindList && known.origin == originHeader:
		known.add(n)
	default:
		d.twice(known, last.line)
	}
	return n
}

func (d *document) keyValue(current *node, e *unstable.Node) {
	parts := d.key(e)
	parent := d.descend(current, parts[:len(parts)-1], originDotted)
	if parent == nil {
		return
	}
	last := parts[len(parts)-1]
	if known := parent.get(last.name); known != nil {
		d.twice(known, last.line)
		return
	}
	parent.put(last.name, d.value(e.Value(), last.line))
}

// descend returns the section that contains the last part of a key, and makes the
// sections on the way. If something else or something complete is in the way, it
// reports that and returns nil.
func (d *document) descend(n *node, parts []part, o origin) *node {
	for _, p := range parts {
		next := n.get(p.name)
		if next == nil {
			next = newSection(p.line, o)
			n.put(p.name, next)
		}
		complete := next.origin == originValue || o == originDotted && next.origin != originDotted
		if next.kind == kindList && !complete {
			next = next.items[len(next.items)-1]
		}
		if next.kind != kindSection || complete {
			d.twice(next, p.line)
			return nil
		}
		n = next
	}
	return n
}

func (d *document) twice(first *node, line int) {
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Key: first.path,
		Text: fmt.Sprintf("is given twice, first as %s on line %d", first.kind, first.pos.line)})
}

// value copies a value out of the parser, which reuses its memory.
func (d *document) value(v *unstable.Node, line int) *node {
	n := &node{pos: pos{line: line}, text: string(v.Data), origin: originValue}
	switch v.Kind {
	case unstable.String:
		n.kind = kindString
	case unstable.Integer:
		n.kind = kindInteger
	case unstable.Float:
		n.kind = kindFloat
	case unstable.Bool:
		n.kind = kindBool
	case unstable.Array:
		n.kind = kindList
		for it := v.Children(); it.Next(); {
			n.items = append(n.items, d.value(it.Node(), line))
		}
	case unstable.InlineTable:
		n = newSection(line, originDotted)
		for it := v.Children(); it.Next(); {
			d.keyValue(n, it.Node())
		}
		n.origin = originValue
	default:
		n.kind = kindTime
	}
	return n
}
