package tencent

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// quickReply is a reply that can read itself from an answer in the shape that
// the documents give, several times as fast as encoding/json can. False: the
// answer has another shape, or is none, and what was read counts for nothing.
type quickReply interface {
	wireReply
	quick(body []byte) bool
	clear()
}

func (r *presenceReply) clear() { *r = presenceReply{} }

// reuse empties a reply and keeps its memory.
func (r *presenceReply) reuse() {
	*r = presenceReply{Results: r.Results[:0], Failed: r.Failed[:0], devices: r.devices[:0]}
}

// quick reads an answer about the presence of users: its decoding is the dearest
// part of a sweep. Names other than the documented ones are passed over.
func (r *presenceReply) quick(body []byte) bool {
	q := quickReader{json: jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true))}
	q.object(func(name string) uint8 {
		switch name {
		case `"ActionStatus"`:
			r.ActionStatus = q.word()
			return 1
		case `"ErrorInfo"`:
			r.ErrorInfo = q.word()
			return 2
		case `"ErrorCode"`:
			r.ErrorCode = q.number()
			return 4
		case `"QueryResult"`:
			q.array(func() {
				r.Results = append(r.Results, presenceResult{})
				q.result(r, &r.Results[len(r.Results)-1])
			})
			return 8
		case `"ErrorList"`:
			q.array(func() {
				r.Failed = append(r.Failed, presenceFailure{})
				q.failure(&r.Failed[len(r.Failed)-1])
			})
			return 16
		}
		return q.other(name, "ActionStatus", "ErrorInfo", "ErrorCode", "QueryResult", "ErrorList")
	})
	return q.ended()
}

func (q *quickReader) result(r *presenceReply, u *presenceResult) {
	q.object(func(name string) uint8 {
		switch name {
		case `"To_Account"`:
			u.Account = q.text()
			return 1
		case `"State"`:
			u.State = q.word()
			return 2
		case `"Status"`:
			u.Status = q.word()
			return 4
		case `"Detail"`:
			first := len(r.devices)
			q.array(func() {
				r.devices = append(r.devices, device{})
				q.device(&r.devices[len(r.devices)-1])
			})
			u.Devices = r.devices[first:len(r.devices):len(r.devices)]
			return 8
		}
		return q.other(name, "To_Account", "State", "Status", "Detail")
	})
}

func (q *quickReader) device(d *device) {
	q.object(func(name string) uint8 {
		switch name {
		case `"Platform"`:
			d.Platform = q.word()
			return 1
		case `"Status"`:
			d.Status = q.word()
			return 2
		}
		return q.other(name, "Platform", "Status")
	})
}

func (q *quickReader) failure(f *presenceFailure) {
	q.object(func(name string) uint8 {
		switch name {
		case `"To_Account"`:
			f.Account = q.text()
			return 1
		case `"ErrorCode"`:
			f.Code = userCode(q.number())
			return 2
		}
		return q.other(name, "To_Account", "ErrorCode")
	})
}

// quickReader reads JSON token by token. Once it has met something unusual it
// reads on no more.
type quickReader struct {
	json *jsontext.Decoder
	odd  bool
}

// word gives the text of v; of the words that come again and again without
// allocating it.
func word(v []byte) string {
	switch string(v) {
	case `"To_Account"`:
		return `"To_Account"`
	case `"State"`:
		return `"State"`
	case `"Status"`:
		return `"Status"`
	case `"Detail"`:
		return `"Detail"`
	case `"Platform"`:
		return `"Platform"`
	case `"ErrorCode"`:
		return `"ErrorCode"`
	case "Online":
		return "Online"
	case "PushOnline":
		return "PushOnline"
	case "Offline":
		return "Offline"
	case "iPhone":
		return "iPhone"
	case "iPad":
		return "iPad"
	case "Android":
		return "Android"
	case "Web":
		return "Web"
	case "PC":
		return "PC"
	case "Mac":
		return "Mac"
	case "70107": // not imported: most of those who fail
		return "70107"
	default:
		return string(v)
	}
}

// value gives the next value as it is written; it is good until the next one.
func (q *quickReader) value() jsontext.Value {
	if q.odd {
		return nil
	}
	v, err := q.json.ReadValue()
	q.odd = err != nil
	return v
}

// enter reads the beginning or the end of an object or array.
func (q *quickReader) enter(kind jsontext.Kind) {
	if q.odd {
		return
	}
	token, err := q.json.ReadToken()
	q.odd = err != nil || token.Kind() != kind
}

// object reads an object. field reads the value of a name, which comes with its
// quotes, and gives a bit of its own for it: a name that comes twice is odd.
func (q *quickReader) object(field func(name string) uint8) {
	var seen uint8
	q.enter('{')
	for !q.odd && q.json.PeekKind() == '"' {
		bit := field(word(q.value()))
		q.odd = q.odd || seen&bit != 0
		seen |= bit
	}
	q.enter('}')
}

func (q *quickReader) array(element func()) {
	q.enter('[')
	for !q.odd && q.json.PeekKind() == '{' {
		element()
	}
	q.enter(']')
}

// other passes over a name that is not known. encoding/json takes names whose
// case differs for the same.
func (q *quickReader) other(name string, known ...string) uint8 {
	for _, k := range known {
		q.odd = q.odd || strings.EqualFold(strings.Trim(name, `"`), k)
	}
	q.odd = q.odd || strings.Contains(name, `\`)
	q.value()
	return 0
}

// text reads a string without escapes.
func (q *quickReader) text() string {
	v := q.value()
	if q.odd = q.odd || v.Kind() != '"' || bytes.IndexByte(v, '\\') >= 0; q.odd {
		return ""
	}
	return string(v[1 : len(v)-1])
}

// word reads a string without escapes that is likely to come again.
func (q *quickReader) word() string {
	v := q.value()
	if q.odd = q.odd || v.Kind() != '"' || bytes.IndexByte(v, '\\') >= 0; q.odd {
		return ""
	}
	return word(v[1 : len(v)-1])
}

func (q *quickReader) number() json.Number {
	v := q.value()
	if q.odd = q.odd || v.Kind() != '0'; q.odd {
		return ""
	}
	return json.Number(word(v))
}

func (q *quickReader) ended() bool {
	if q.odd {
		return false
	}
	_, err := q.json.ReadToken()
	return errors.Is(err, io.EOF)
}
