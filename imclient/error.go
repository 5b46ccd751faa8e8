package imclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Class says what a failure means for the work; it is assigned once, where the
// answer is parsed. The zero value is ClassTransient, so that a code that
// nobody mapped is tried again.
type Class uint8

// The classes and what happens.
const (
	// ClassTransient: tried again with backoff, then the range is retried later.
	ClassTransient Class = iota
	// ClassThrottled: the rate halves for all instances, then tried again.
	ClassThrottled
	// ClassUnauthorised: the signature or token was refused. Clients renew it
	// and try once more by themselves; what they return is then ClassFatal.
	ClassUnauthorised
	// ClassFatal: the run fails at once; somebody must fix a setting.
	ClassFatal
	// ClassBadBatch: the batch is halved until the offending ids stand alone.
	ClassBadBatch
	// ClassPerUser: every user of the batch failed, each for itself.
	ClassPerUser
)

// String gives the class as logs and metrics show it.
func (c Class) String() string {
	switch c {
	case ClassTransient:
		return "transient"
	case ClassThrottled:
		return "throttled"
	case ClassUnauthorised:
		return "unauthorised"
	case ClassFatal:
		return "fatal"
	case ClassBadBatch:
		return "bad_batch"
	case ClassPerUser:
		return "per_user"
	default:
		return fmt.Sprintf("class(%d)", uint8(c))
	}
}

// Error is a failed call. Its text never holds a signature, a token, a
// connection id or a URL's query.
type Error struct {
	Provider   Provider
	API        string // e.g. "query_online_status"
	Class      Class
	Code       string        // the provider's code; "" when it never answered
	Text       string        // the provider's words or ours, made by CleanText
	HTTPStatus int           // 0 when there was no answer
	RetryAfter time.Duration // how long the provider wants us to wait; 0: not said
	OpID       string        // OpenIM's operationID of the call, "" elsewhere
	Err        error         // the cause, when there is one
}

// Error says provider, API, code and text in one line.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.Provider, e.API)
	if e.Code != "" {
		fmt.Fprintf(&b, ": code %s", e.Code)
	} else if e.HTTPStatus != 0 && e.HTTPStatus != 200 && e.Text == "" {
		fmt.Fprintf(&b, ": HTTP %d", e.HTTPStatus)
	}
	if e.Text != "" {
		b.WriteString(": ")
		b.WriteString(e.Text)
	} else if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf gives the class of err, looking through wrapping. An error that is no
// *Error is transient; ask for context errors first.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return ClassTransient
}

// IsContext reports whether err is only the end of a context, which is no
// failure of the provider.
func IsContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// maxText bounds what is kept of a provider's words: enough for every message
// seen, too little for a stack trace.
const maxText = 300

// CleanText makes a provider's text fit to be logged and stored: cut to 300
// bytes on a character's border, one line, no control characters, and with the
// given secrets and every word that looks like a token or signature replaced
// (OpenIM repeats the refused token in errDlt).
func CleanText(s string, secrets ...string) string {
	s = redactSecrets(s, secrets)
	// Control characters go first: one inside a token would cut it into words
	// too short to be recognised.
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	// Once more the secrets, in which such a character stood.
	s = redactRuns(redactSecrets(strings.Join(strings.Fields(s), " "), secrets))
	if len(s) > maxText {
		cut := maxText
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

const redacted = "[redacted]"

func redactSecrets(s string, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, redacted)
		}
	}
	return s
}

// redactRuns hides what looks like a credential, wherever in a word it stands:
// a JWT (eyJ…), a usersig (eJ… or eA…: zlib in base64), and any other run of 32
// and more characters of the base64 alphabets.
func redactRuns(s string) string {
	const minOpaque, minPrefixed = 32, 16
	var b strings.Builder
	for len(s) > 0 {
		// A JWT has dots inside; elsewhere they make names of hosts and files.
		jwt := strings.HasPrefix(s, "eyJ")
		n := 0
		for n < len(s) && (isOpaque(s[n]) || jwt && s[n] == '.') {
			n++
		}
		run := s[:n]
		prefixed := jwt || strings.HasPrefix(run, "eJ") || strings.HasPrefix(run, "eA")
		if n >= minOpaque || n >= minPrefixed && prefixed {
			b.WriteString(redacted)
		} else {
			b.WriteString(run)
		}
		if n < len(s) {
			b.WriteByte(s[n])
			n++
		}
		s = s[n:]
	}
	return b.String()
}

// isOpaque reports whether c occurs in tokens and signatures; % because a
// signature may come back percent-encoded.
func isOpaque(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '-' || c == '_' || c == '*' || c == '+' || c == '/' || c == '%'
}
