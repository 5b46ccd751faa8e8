package imclient

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// What a Decoder accepts of one answer. No provider comes near these bounds.
const (
	maxValue   = 64 << 10 // bytes of one string or number
	maxMembers = 64       // of one object
	maxDepth   = 16       // of objects and arrays within each other
)

// Decoder reads a provider's JSON answer token by token while it arrives, so that
// no more of it is in memory than one value. An object that has two members of
// the same name, known to the caller or not, makes the answer malformed: what it
// says would depend on who reads it. Names are case-sensitive, as in the
// providers' documents.
//
// A value of another type than the caller asks for is skipped and sets WrongType:
// it must not cost the other users their answer. Once the answer is malformed,
// the methods return zero values and read no more.
type Decoder struct {
	WrongType bool

	json   *jsontext.Decoder
	source source
	err    error  // io.EOF at its end, else what makes the answer malformed
	plain  []byte // a string without its escapes
}

// What makes an answer malformed, besides what jsontext finds.
var (
	errTooLong   = errors.New("is too long")
	errTrailing  = errors.New("is followed by something")
	errStructure = errors.New("has too many members in an object, or is nested too deep")
	errTooMany   = errors.New("has too many users")
)

// source limits what the decoder sees of a body.
type source struct {
	body        io.Reader
	read, limit int64
	parsed      func() int64 // how many bytes of it the decoder is done with
	err         error        // of the body; io.EOF is one
}

// Read makes the source an io.Reader. jsontext keeps all of the value that it is
// reading in memory; maxValue bounds it here.
func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	ahead := s.read - s.parsed()
	if ahead >= maxValue {
		return 0, errTooLong
	}
	n, err := s.body.Read(p[:min(int64(len(p)), maxValue-ahead, s.limit-s.read+1)])
	s.read, s.err = s.read+int64(n), err
	if s.read > s.limit {
		return 0, errTooLong
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

var decoders = sync.Pool{New: func() any {
	d := &Decoder{json: new(jsontext.Decoder)}
	d.source.parsed = d.json.InputOffset
	return d
}}

// NewDecoder returns a decoder of the first limit bytes of body. Its user must
// call free.
func NewDecoder(body io.Reader, limit int64) *Decoder {
	d := decoders.Get().(*Decoder)
	d.WrongType, d.err = false, nil
	d.source.body, d.source.read, d.source.limit, d.source.err = body, 0, limit, nil
	// A text in another encoding must not hide the code beside it.
	d.json.Reset(&d.source, jsontext.AllowInvalidUTF8(true))
	return d
}

// Free ends the use of the decoder.
func (d *Decoder) Free() {
	d.source.body = nil
	decoders.Put(d)
}

// Answer reads the whole answer, an object. It calls member with the name of each
// member; member must read the value. If whole is false, the answer was cut off or
// is malformed, and nothing that was read of it may be used.
func (d *Decoder) Answer(member func(name []byte)) (whole bool) {
	d.Object(member)
	return d.end()
}

// Whole reports whether Answer read a whole answer.
func (d *Decoder) Whole() bool { return d.err == io.EOF }

// end reads the end of the answer, after which nothing may follow.
func (d *Decoder) end() (whole bool) {
	if d.err == nil {
		_, d.err = d.json.ReadToken()
	}
	if d.err == nil {
		d.err = errTrailing
	}
	return d.Whole()
}

// Object reads an object. It calls field with the name of each member; field must
// read the value. The name is valid until then.
func (d *Decoder) Object(field func(name []byte)) {
	if !d.enter('{') {
		return
	}
	for members := 0; d.err == nil && d.json.PeekKind() == '"'; members++ {
		if members == maxMembers {
			d.err = errStructure
			return
		}
		if name := d.string(); d.err == nil {
			field(name)
		}
	}
	d.token()
}

// Array reads an array. It calls element for each element, which element must read.
func (d *Decoder) Array(element func()) {
	if !d.enter('[') {
		return
	}
	for d.err == nil {
		if kind := d.json.PeekKind(); kind == ']' || kind == 0 {
			break
		}
		element()
	}
	d.token()
}

// Users is Array for a list of users of whom asked were asked about. A list with
// more than Strangers elements besides makes the answer malformed.
func (d *Decoder) Users(asked int, user func()) {
	users := 0
	d.Array(func() {
		if users++; users > asked+Strangers {
			d.err = errTooMany
			return
		}
		user()
	})
}

// Strangers is how many users an answer may name that were not asked about, or a
// second time. They are ignored; see Answer.Unasked.
const Strangers = 100

// enter reads the beginning of an object or array. If the value is neither, it is
// skipped; null is nothing.
func (d *Decoder) enter(kind jsontext.Kind) bool {
	if d.err != nil {
		return false
	}
	switch d.json.PeekKind() {
	case kind:
		if d.json.StackDepth() >= maxDepth {
			d.err = errStructure
			return false
		}
		d.token()
		return d.err == nil
	case 'n':
	default:
		d.WrongType = true
	}
	d.Skip()
	return false
}

// token reads a token, which must be there.
func (d *Decoder) token() {
	if d.err != nil {
		return
	}
	if _, d.err = d.json.ReadToken(); d.err == io.EOF {
		d.err = io.ErrUnexpectedEOF
	}
}

// string reads a string, which must be there, and returns its bytes, valid until
// the next read.
func (d *Decoder) string() []byte {
	v, err := d.json.ReadValue()
	if err != nil {
		d.err = err
		return nil
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	// The only error is about bytes that are no UTF-8, which it replaces.
	d.plain, _ = jsontext.AppendUnquote(d.plain[:0], v)
	return d.plain
}

// Text reads a string and returns its first bytes, valid until the next read; nil
// for null and for another type.
func (d *Decoder) Text(most int) []byte {
	if d.err != nil {
		return nil
	}
	switch d.json.PeekKind() {
	case '"':
		v := d.string()
		return v[:min(len(v), most)]
	case 'n':
	default:
		d.WrongType = true
	}
	d.Skip()
	return nil
}

// Scalar is Text for values that some versions of a provider send as a number and
// some as a string; it takes true and false, too. It never sets WrongType: of an
// object or array it returns the bracket.
func (d *Decoder) Scalar(most int) []byte {
	if d.err != nil {
		return nil
	}
	switch kind := d.json.PeekKind(); kind {
	case '"':
		v := d.string()
		return v[:min(len(v), most)]
	case '0', 't', 'f':
		v, err := d.json.ReadValue()
		if err != nil {
			d.err = err
			return nil
		}
		return v[:min(len(v), most)]
	case '{', '[':
		d.Skip()
		d.plain = append(d.plain[:0], byte(kind))
		return d.plain
	default:
		d.Skip()
		return nil
	}
}

// Bool reads true or false.
func (d *Decoder) Bool() bool {
	if d.err != nil {
		return false
	}
	switch kind := d.json.PeekKind(); kind {
	case 't', 'f':
		d.token()
		return kind == 't'
	case 'n':
	default:
		d.WrongType = true
	}
	d.Skip()
	return false
}

// Skip reads the next value, whatever it is.
func (d *Decoder) Skip() {
	outside := d.json.StackDepth()
	for d.token(); d.err == nil && d.json.StackDepth() > outside; d.token() {
		depth := d.json.StackDepth()
		if kind, members := d.json.StackIndex(depth); depth > maxDepth || kind == '{' && members > 2*maxMembers {
			d.err = errStructure
		}
	}
}
