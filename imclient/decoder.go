package imclient

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of one answer, far beyond what the providers send.
const (
	maxValue   = 64 << 10 // bytes of one string or number
	maxMembers = 64       // of one object
	maxDepth   = 16       // of nested objects and arrays
)

const (
	// maxWord is how many bytes Word and Scalar keep, more than any word of a provider.
	maxWord = 64
	// maxWords is how many words a Decoder remembers.
	maxWords = 256
)

// strangers is how many users an answer may hold beyond those asked about: unknown or
// repeated ones, which Answer.Unasked counts.
const strangers = 100

// Decoder reads a provider's JSON, an answer or a hook, token by token while it arrives,
// so that it holds one value at a time. An object with a repeated name makes the answer malformed:
// its meaning would depend on the reader. Names are case-sensitive, as in the
// providers' documents.
//
// A value of another type than the caller asks for is skipped and sets WrongType,
// because it must not cost the other users their answer. Once the answer is malformed,
// the methods return zero values and read no more.
type Decoder struct {
	WrongType bool

	json   *jsontext.Decoder
	source source
	err    error // io.EOF at the end of the answer, else what makes it malformed
	named  int   // see Reply.Named
	plain  []byte
	words  map[string]string // words read so far, to share their memory
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
	parsed      func() int64 // how many bytes the decoder is done with
	err         error        // of the body, io.EOF included
}

// Read implements io.Reader. jsontext holds all of the value that it is reading, which
// maxValue limits here.
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
	d := &Decoder{json: new(jsontext.Decoder), words: make(map[string]string)}
	d.source.parsed = d.json.InputOffset
	return d
}}

// NewDecoder returns a decoder of the first limit bytes of body. The caller must call Free.
func NewDecoder(body io.Reader, limit int64) *Decoder {
	d := decoders.Get().(*Decoder)
	d.WrongType, d.err, d.named = false, nil, 0
	d.source.body, d.source.read, d.source.limit, d.source.err = body, 0, limit, nil
	// A text in another encoding must not hide the code beside it.
	d.json.Reset(&d.source, jsontext.AllowInvalidUTF8(true))
	return d
}

// Free releases the decoder, which must not be used any more.
func (d *Decoder) Free() {
	d.source.body = nil
	decoders.Put(d)
}

// Body is the answer of one API, as the provider's package reads and interprets it.
type Body interface {
	// Reset forgets everything that was read.
	Reset()
	// ReadMember reads the value of a member of the answer, or leaves it to be skipped; asked
	// is how many users the call asked about.
	ReadMember(d *Decoder, name []byte, asked int)
	// Envelope returns what the answer says about the call as a whole.
	Envelope() Envelope
}

// Envelope is what an answer says about the call as a whole.
type Envelope struct {
	Code   string // the provider's code; "": the body is not an answer of the API
	Text   string // the provider's words, which may repeat secrets
	Failed bool   // whether the answer reports a failure even with code 0
}

// Answer reads the whole answer, an object, into b. If it is cut off or malformed, b is
// reset and whole is false.
func (d *Decoder) Answer(b Body, asked int) (whole bool) {
	b.Reset()
	if whole = d.Whole(func(name []byte) { b.ReadMember(d, name, asked) }); !whole {
		b.Reset()
	}
	return whole
}

// Whole is Object for all that there is to read. It reports false if that is cut off or
// malformed.
func (d *Decoder) Whole(field func(name []byte)) bool {
	d.Object(field)
	return d.end()
}

// end reads the end of the answer, after which nothing may follow.
func (d *Decoder) end() (whole bool) {
	if d.err == nil {
		_, d.err = d.json.ReadToken()
	}
	if d.err == nil {
		d.err = errTrailing
	}
	return d.err == io.EOF
}

// Object reads an object. It calls field with the name of each member, which is valid until
// field reads the value. A value that field does not read is skipped.
func (d *Decoder) Object(field func(name []byte)) {
	if !d.enter('{') {
		return
	}
	for members := 0; d.err == nil && d.json.PeekKind() == '"'; members++ {
		if members == maxMembers {
			d.err = errStructure
			return
		}
		name := d.string()
		if d.err != nil {
			break
		}
		before := d.json.InputOffset()
		if field(name); d.err == nil && d.json.InputOffset() == before {
			d.Skip()
		}
	}
	d.token()
}

// Array reads an array. It calls element for each element; element must read it.
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

// Users is Array for the users of an answer to a call about asked users. More than
// asked+strangers elements make the answer malformed.
func (d *Decoder) Users(asked int, user func()) {
	users := 0
	d.Array(func() {
		if users++; users > asked+strangers {
			d.err = errTooMany
			return
		}
		user()
	})
}

// enter reads the beginning of an object or array. It reports false for another value,
// which it skips; null does not set WrongType.
func (d *Decoder) enter(kind jsontext.Kind) bool {
	if d.err != nil {
		return false
	}
	if d.json.PeekKind() != kind {
		d.mismatch()
		return false
	}
	if d.json.StackDepth() >= maxDepth {
		d.err = errStructure
		return false
	}
	d.token()
	return d.err == nil
}

// mismatch skips a value of another type than the caller asked for.
func (d *Decoder) mismatch() {
	if d.json.PeekKind() != 'n' {
		d.WrongType = true
	}
	d.Skip()
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

// string reads a string, which must be there, and returns its bytes, valid until the
// next read.
func (d *Decoder) string() []byte {
	v, err := d.json.ReadValue()
	if err != nil {
		d.err = err
		return nil
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	// The only error concerns invalid UTF-8, which is replaced.
	d.plain, _ = jsontext.AppendUnquote(d.plain[:0], v)
	return d.plain
}

// text reads a string and returns its first bytes, valid until the next read; nil for
// null and for another type.
func (d *Decoder) text(most int) []byte {
	if d.err != nil {
		return nil
	}
	if d.json.PeekKind() != '"' {
		d.mismatch()
		return nil
	}
	v := d.string()
	return v[:min(len(v), most)]
}

// scalar is text for a string, a number, true or false. It never sets WrongType: of an
// object or array it returns the bracket.
func (d *Decoder) scalar(most int) []byte {
	if d.err != nil {
		return nil
	}
	switch kind := d.json.PeekKind(); kind {
	case '"':
		return d.text(most)
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

// Text reads a string and returns its first bytes; "" for null and for another type.
func (d *Decoder) Text(most int) string { return string(d.text(most)) }

// UserID is Text for a user id. Ids that are not empty count in Reply.Named.
func (d *Decoder) UserID(most int) string {
	id := d.text(most)
	if len(id) > 0 {
		d.named++
	}
	return string(id)
}

// Word is Text for one of a provider's few words, such as a state. It returns up to 64
// bytes and does not allocate a recurring word again.
func (d *Decoder) Word() string { return d.intern(d.text(maxWord)) }

// Scalar is Word for values that are a number in some versions of a provider and a
// string in others; it accepts true and false too. It never sets WrongType: of an object
// or array it returns the opening bracket.
func (d *Decoder) Scalar() string { return d.intern(d.scalar(maxWord)) }

func (d *Decoder) intern(v []byte) string {
	word, known := d.words[string(v)]
	if !known {
		if len(d.words) >= maxWords {
			clear(d.words)
		}
		word = string(v)
		d.words[word] = word
	}
	return word
}

// Int reads an integer, as a number or in a string; 0 for anything else.
func (d *Decoder) Int() int64 {
	n, err := strconv.ParseInt(string(d.scalar(maxWord)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Bool reads true or false.
func (d *Decoder) Bool() bool {
	if d.err != nil {
		return false
	}
	kind := d.json.PeekKind()
	if kind != 't' && kind != 'f' {
		d.mismatch()
		return false
	}
	d.token()
	return kind == 't'
}

// Skip reads the next value and discards it.
func (d *Decoder) Skip() {
	outside := d.json.StackDepth()
	for d.token(); d.err == nil && d.json.StackDepth() > outside; d.token() {
		depth := d.json.StackDepth()
		if kind, members := d.json.StackIndex(depth); depth > maxDepth || kind == '{' && members > 2*maxMembers {
			d.err = errStructure
		}
	}
}
