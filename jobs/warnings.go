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
	"syncer/internal/pg"
)

// repeatEvery is how often a warning is logged that goes on.
const repeatEvery = time.Minute

// warnings keeps repeated warnings from filling the log: an API that is down fails
// every range of every run. Of the warnings about one app that say the same for
// the same reason, the first is logged at once, and then one a minute with the
// number that was left out. An outage of the database, which fails everything, is a
// warning when it begins and a line when it ends; what fails meanwhile is logged at
// debug level. It is safe for concurrent use.
type warnings struct {
	log    zerolog.Logger
	now    func() time.Time
	mu     sync.Mutex
	logged map[warningKey]*loggedWarning
	lostAt time.Time // when the database was lost; zero while it answers
}

// warningKey is what makes two warnings the same.
type warningKey struct{ app, message, reason string }

// loggedWarning is a warning that was logged in the last minute.
type loggedWarning struct {
	at      time.Time
	leftOut int    // of those since
	last    func() // logs the last of them
}

// warning returns the event for a failure: a warning, or for a panic an error with
// the stack.
func warning(log zerolog.Logger, err error) *zerolog.Event {
	if caught, ok := errors.AsType[*imclient.PanicError](err); ok {
		return log.Error().Bytes("stack", caught.Stack)
	}
	return log.Warn()
}

func newWarnings(log zerolog.Logger) *warnings {
	return &warnings{log: log, now: time.Now, logged: make(map[warningKey]*loggedWarning)}
}

// warn logs a failure, now or when its minute is over. app is "" for what concerns
// no app. If not nil, fields adds fields to the event.
func (w *warnings) warn(app, message string, err error, fields func(*zerolog.Event)) {
	w.repeat(warningKey{app, message, reasonOf(err)}, err, func(event *zerolog.Event) {
		if fields != nil {
			fields(event)
		}
		event.Str("error", err.Error())
	})
}

// warnOf logs a warning that is about no failure in the same way.
func (w *warnings) warnOf(key warningKey, fields func(*zerolog.Event)) { w.repeat(key, nil, fields) }

func (w *warnings) repeat(key warningKey, err error, fields func(*zerolog.Event)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost(key, err, fields) {
		return
	}
	w.writeOverdue(repeatEvery)
	t, ok := w.logged[key]
	if !ok {
		t = &loggedWarning{at: w.now()}
		w.logged[key] = t
	}
	happened := w.now()
	write := func() {
		event := warning(w.log, err)
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

// lost logs a failure for want of a connection to the database, and reports whether
// it is one. A users table may be in another database: it begins no outage.
func (w *warnings) lost(key warningKey, err error, fields func(*zerolog.Event)) bool {
	_, ofAPI := errors.AsType[*imclient.Error](err)
	_, ofUsers := errors.AsType[*usersReadError](err)
	switch {
	case ofAPI || !pg.Lost(err) || ofUsers && w.lostAt.IsZero():
		return false
	case w.lostAt.IsZero():
		w.lostAt = w.now()
		w.log.Warn().Str("error", err.Error()).Msg("no connection to the database; work waits until it answers")
	default:
		w.log.Debug().Str("app", key.app).Func(fields).Msg(key.message)
	}
	return true
}

// answered ends an outage of the database.
func (w *warnings) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.lostAt.IsZero() {
		w.log.Info().Dur("dur_ms", w.now().Sub(w.lostAt)).Msg("the database answers again")
		w.lostAt = time.Time{}
	}
}

// usersReadError marks an error of reading a users table.
type usersReadError struct{ error }

// Unwrap returns the error.
func (e *usersReadError) Unwrap() error { return e.error }

func ofUsers(err error) error {
	if err == nil {
		return nil
	}
	return &usersReadError{err}
}

// flush logs what was left out and is due; at the end, everything.
func (w *warnings) flush(end bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if end {
		w.writeOverdue(0)
		return
	}
	w.writeOverdue(repeatEvery)
}

// writeOverdue logs the last repetition of each warning that was logged at least
// age ago, and forgets those without one.
func (w *warnings) writeOverdue(age time.Duration) {
	now := w.now()
	for key, t := range w.logged {
		switch {
		case now.Sub(t.at) < age:
		case t.leftOut == 0:
			delete(w.logged, key)
		default:
			t.last()
			t.at, t.leftOut, t.last = now, 0, nil
		}
	}
}

var digits = regexp.MustCompile(`\d+`)

// reasonOf returns what repetitions of a failure have in common: code or status of
// the API's answer, SQLSTATE, or the text of the innermost cause without its
// numbers, which may be ports.
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
