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

// quick reads an answer about the presence of users: its decoding is the dearest
// part of a sweep. Names other than the documented ones are passed over.
func (r *presenceReply) quick(body []byte) bool {
	q := quickReader{json: jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true))}
	r.Results = make([]presenceResult, 0, maxPresenceBatch)
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
				q.result(&r.Results[len(r.Results)-1])
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

func (q *quickReader) result(u *presenceResult) {
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
			first := len(q.devices)
			q.array(func() {
				q.devices = append(q.devices, device{})
				q.device(&q.devices[len(q.devices)-1])
			})
			u.Devices = q.devices[first:len(q.devices):len(q.devices)]
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
			f.Code = q.number()
			return 2
		}
		return q.other(name, "To_Account", "ErrorCode")
	})
}

// quickReader reads JSON token by token. Once it has met something unusual it
// reads on no more.
type quickReader struct {
	json    *jsontext.Decoder
	odd     bool
	devices []device // of all users, so that they are allocated together
}

// words are the strings that come again and again; only others are allocated.
var words = func() map[string]string {
	m := make(map[string]string)
	for _, w := range []string{
		`"ActionStatus"`, `"ErrorInfo"`, `"ErrorCode"`, `"QueryResult"`, `"ErrorList"`, `"To_Account"`, `"State"`, `"Status"`, `"Detail"`, `"Platform"`,
		"OK", "FAIL", "", "0", "70107", "Online", "PushOnline", "Offline",
		"iPhone", "IPhone", "iPad", "Android", "Web", "PC", "Mac", "Linux", "Harmony",
	} {
		m[w] = w
	}
	return m
}()

func word(v []byte) string {
	if w, ok := words[string(v)]; ok {
		return w
	}
	return string(v)
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
