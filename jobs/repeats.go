package jobs

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
)

// repeatEvery is how often a warning is written again that goes on.
const repeatEvery = time.Minute

// repeats keeps warnings that repeat from filling the log: an API that is down
// fails every range of every run. Of those about one app that say the same for the
// same reason one is written at once, and one a minute after, with how many were
// left out. Safe for concurrent use.
type repeats struct {
	log  zerolog.Logger
	now  func() time.Time
	mu   sync.Mutex
	told map[repeated]*telling
}

// repeated is what makes two warnings the same.
type repeated struct{ app, message, reason string }

// telling is a warning that was written in the last minute.
type telling struct {
	at      time.Time
	leftOut int    // of those since
	last    func() // writes the last of them
}

// warning begins the line about a failure. A panic is a mistake of ours: it is an
// error, and says where.
func warning(log zerolog.Logger, err error) *zerolog.Event {
	if caught, ok := errors.AsType[*imclient.PanicError](err); ok {
		return log.Error().Bytes("stack", caught.Stack)
	}
	return log.Warn()
}

func newRepeats(log zerolog.Logger) *repeats {
	return &repeats{log: log, now: time.Now, told: make(map[repeated]*telling)}
}

// warn writes a warning about a failure, now or when its minute is over. app is ""
// for what is of no app; fields, if there are any, adds what else it tells.
func (r *repeats) warn(app, message string, err error, fields func(*zerolog.Event)) {
	r.repeat(repeated{app, message, reasonOf(err)}, err, func(event *zerolog.Event) {
		if fields != nil {
			fields(event)
		}
		event.Str("error", err.Error())
	})
}

// tell does the same for a warning that is about no failure.
func (r *repeats) tell(key repeated, fields func(*zerolog.Event)) { r.repeat(key, nil, fields) }

func (r *repeats) repeat(key repeated, err error, fields func(*zerolog.Event)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writeOverdue(repeatEvery)
	t, ok := r.told[key]
	if !ok {
		t = &telling{at: r.now()}
		r.told[key] = t
	}
	happened := r.now()
	write := func() {
		event := warning(r.log, err)
		if key.app != "" {
			event = event.Str("app", key.app)
		}
		if t.leftOut > 0 {
			event = event.Time("happened_at", happened) // it may be over by now
		}
		if t.leftOut > 1 {
			event = event.Int("left_out", t.leftOut-1) // but for this one
		}
		event.Func(fields).Msg(key.message)
	}
	if !ok {
		write()
		return
	}
	t.leftOut++
	t.last = write
}

// flush writes what was left out and is due; at the end, everything.
func (r *repeats) flush(end bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if end {
		r.writeOverdue(0)
		return
	}
	r.writeOverdue(repeatEvery)
}

// writeOverdue writes, of each warning that was written so long ago, the last one
// since; it forgets those that did not come again.
func (r *repeats) writeOverdue(age time.Duration) {
	now := r.now()
	for key, t := range r.told {
		switch {
		case now.Sub(t.at) < age:
		case t.leftOut == 0:
			delete(r.told, key)
		default:
			t.last()
			t.at, t.leftOut, t.last = now, 0, nil
		}
	}
}

var digits = regexp.MustCompile(`\d+`)

// reasonOf is what two failures have in common that are the same again: code or
// status of the API's answer, SQLSTATE, or the words of the innermost cause but
// for the numbers in them, which may be ports.
func reasonOf(err error) string {
	api := ""
	if apiErr, ok := errors.AsType[*imclient.Error](err); ok {
		api = apiErr.API + " "
		if apiErr.Code != "" || apiErr.HTTPStatus != 0 {
			return fmt.Sprintf("%s%s %d", api, apiErr.Code, apiErr.HTTPStatus)
		}
	}
	if sqlErr, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return sqlErr.SQLState()
	}
	for {
		switch wrapped := err.(type) {
		case interface{ Unwrap() []error }:
			if inner := wrapped.Unwrap(); len(inner) > 0 {
				err = inner[0]
				continue
			}
		case interface{ Unwrap() error }:
			if inner := wrapped.Unwrap(); inner != nil {
				err = inner
				continue
			}
		}
		text, _, _ := strings.Cut(err.Error(), "\n")
		return api + digits.ReplaceAllString(text, "#")
	}
}
