package imclient

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// anything reads any value, numbers as their text.
func (d *Decoder) anything() any {
	switch d.json.PeekKind() {
	case '{':
		object := map[string]any{}
		d.Object(func(name []byte) { n := string(name); object[n] = d.anything() })
		return object
	case '[':
		array := []any{}
		d.Array(func() { array = append(array, d.anything()) })
		return array
	case '"':
		return d.Text(maxValue)
	case '0':
		return json.Number(d.scalar(maxValue))
	case 't', 'f':
		return d.Bool()
	default:
		d.Skip()
		return nil
	}
}

// shape is what of a JSON text a Decoder does not take.
type shape struct{ twice, big bool }

// shapeOf reads a valid JSON text once more, with encoding/json.
func shapeOf(body []byte) (s shape) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	var walk func(depth int)
	walk = func(depth int) {
		token, _ := decoder.Token()
		names, isObject := map[string]bool{}, token == json.Delim('{')
		if !isObject && token != json.Delim('[') {
			return
		}
		for decoder.More() {
			if isObject {
				name, _ := decoder.Token()
				s.twice = s.twice || names[name.(string)]
				names[name.(string)] = true
			}
			walk(depth + 1)
		}
		_, _ = decoder.Token()
		s.big = s.big || depth > maxDepth || len(names) > maxMembers
	}
	walk(1)
	s.big = s.big || len(body) > maxValue
	return s
}

func decode(body io.Reader, limit int64, read func(*Decoder)) (d *Decoder, whole bool) {
	d = NewDecoder(body, limit)
	read(d)
	return d, d.end()
}

func TestDecoder_memberTwice(t *testing.T) {
	for _, body := range []string{
		`{"a":1,"a":1}`, `{"a":1,"b":2,"a":1}`, `{"x":[{"a":{"y":1}},{"a":{"y":1,"z":0,"y":2}}]}`, `{"a":1,"\u0061":1}`,
	} {
		for what, read := range map[string]func(*Decoder){
			"read": func(d *Decoder) { d.anything() }, "skipped": (*Decoder).Skip,
			"known": func(d *Decoder) { d.Object(func([]byte) { d.Skip() }) },
		} {
			if _, whole := decode(strings.NewReader(body), 1<<20, read); whole {
				t.Errorf("%s, %s: taken for an answer", body, what)
			}
		}
	}
	for _, body := range []string{`{"a":1,"A":1}`, `{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}`} {
		if d, whole := decode(strings.NewReader(body), 1<<20, func(d *Decoder) { d.anything() }); !whole {
			t.Errorf("%s: %v", body, d.err)
		}
	}
}

// TestDecoder_bounds: what goes beyond the bounds is no answer, and the decoder
// has not read much more of it, nor grown, by then.
func TestDecoder_bounds(t *testing.T) {
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"m%d":%d,`, i, i)
		}
		return "{" + strings.TrimSuffix(b.String(), ",") + "}"
	}
	nested := func(n int) string { return strings.Repeat(`[`, n) + strings.Repeat(`]`, n) }
	text := func(n int) string { return `{"text":"` + strings.Repeat("x", n) + `"}` }
	users := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("{},", n), ",") + "]" }
	const limit = 300 << 10
	for name, tc := range map[string]struct {
		body  string
		whole bool
		most  int64 // bytes read
	}{
		"members":           {members(maxMembers), true, limit},
		"too many members":  {members(10_000), false, maxValue},
		"depth":             {nested(maxDepth), true, limit},
		"too deep":          {nested(100_000), false, maxValue},
		"a text":            {text(maxValue - 10), true, limit},
		"a text too long":   {text(limit / 2), false, 3 * maxValue},
		"a number too long": {strings.Repeat("1", limit/2), false, 3 * maxValue},
		"blanks":            {strings.Repeat(" ", limit/2) + "{}", false, 3 * maxValue},
		"users":             {users(10 + strangers), true, limit},
		"too many users":    {users(50_000), false, maxValue},
		"as long as may be": {"[" + strings.Repeat(" \n[],", limit/5-2) + "[]" + strings.Repeat(" ", 6) + "]", true, limit},
	} {
		for what, read := range map[string]func(*Decoder){
			"read": func(d *Decoder) { d.anything() }, "skipped": (*Decoder).Skip,
			"users": func(d *Decoder) { d.Users(10, d.Skip) },
		} {
			if strings.Contains(name, "users") != (what == "users") {
				continue
			}
			d, whole := decode(strings.NewReader(tc.body), limit, read)
			if whole != tc.whole || d.source.read > tc.most {
				t.Errorf("%s, %s: whole %t (%v) after %d bytes, want %t after at most %d", name, what, whole, d.err, d.source.read, tc.whole, tc.most)
			}
			if n := cap(d.json.UnreadBuffer()); n > 4*maxValue {
				t.Errorf("%s, %s: the decoder holds %d bytes", name, what, n)
			}
		}
	}
	if d, whole := decode(strings.NewReader("[1234567890]"), 11, (*Decoder).Skip); whole || d.err == nil {
		t.Error("an answer longer than the limit is taken for one")
	}
}

// FuzzDecoder compares what is read with encoding/json, which is more liberal.
func FuzzDecoder(f *testing.F) {
	for _, body := range []string{
		`{"a":1,"a":2}`, `{"a":{"b":[1,{"c":null,"c":true}]}}`, `{"a":1,"\u0061":1}`, `{"a":"\ud83d\ude00\n","A":-1.5e3}`, "{\"a\xff\":\"\xff\",\"a\xfe\":1}",
		`[]`, `null`, ` {} `, `{}{}`, `{`, ``, `"\ud800"`, `[1,]`, `01`, "\ufeff{}", `{"a":tru}`, strings.Repeat("[", 20) + strings.Repeat("]", 20),
	} {
		f.Add([]byte(body), false)
		f.Add([]byte(body), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, skip bool) {
		var want any
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		valid := json.Valid(body) && decoder.Decode(&want) == nil
		var s shape
		if valid {
			s = shapeOf(body)
		}
		var got any
		// As it comes from the network: in pieces.
		d, whole := decode(iotest.HalfReader(bytes.NewReader(body)), 1<<20, func(d *Decoder) {
			if skip {
				d.Skip()
			} else {
				got = d.anything()
			}
		})
		if s.big || !utf8.Valid(body) && (!whole || valid) {
			return // bytes that are no UTF-8 are kept as they are, and become U+FFFD there
		}
		if whole != (valid && !s.twice) {
			t.Fatalf("%q: whole %t (%v); it is valid: %t, with a member twice: %t", body, whole, d.err, valid, s.twice)
		}
		if diff := cmp.Diff(want, got); whole && !skip && diff != "" {
			t.Errorf("%q is read otherwise than by encoding/json (-want +got):\n%s", body, diff)
		}
	})
}
