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

// Class is what a failure means for the work. It is assigned once, where the answer is
// parsed. The zero value is ClassTransient, so that unknown codes are retried.
type Class uint8

// The classes, and what package jobs does.
const (
	// ClassTransient: retried with backoff; then the range is retried later.
	ClassTransient Class = iota
	// ClassThrottled: retried after the rate of all instances is halved.
	ClassThrottled
	// ClassUnauthorised: the signature or token was refused. Exchange renews it and
	// retries; it does not return this class.
	ClassUnauthorised
	// ClassFatal: the run fails at once; the operator must change a setting.
	ClassFatal
	// ClassBadBatch: the batch is halved until the offending ids are isolated.
	ClassBadBatch
	// ClassPerUser: every user of the batch failed individually.
	ClassPerUser
)

var classNames = []string{"transient", "throttled", "unauthorised", "fatal", "bad_batch", "per_user"}

// String returns the class as logs, metrics and tables show it.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// Error is a failed call. Its text never contains a signature, a token, a connection id or
// the query of a URL.
type Error struct {
	Provider   Provider
	API        string // e.g. "query_online_status"
	Class      Class
	Code       string        // the provider's code; "" without one
	Text       string        // the provider's words, cleaned with CleanText, or ours
	HTTPStatus int           // 0 without an answer
	RetryAfter time.Duration // how long the provider asks to wait; 0 if it does not
	OpID       string        // OpenIM's operationID of the call; "" for other providers
	Err        error         // the cause, or nil
}

// Error returns provider, API, code and text in one line.
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

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of the *Error that err wraps. Any other error is transient;
// check IsContext first.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return ClassTransient
}

// IsContext reports whether err is the end of a context rather than a failure of the
// provider.
func IsContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// maxText limits a provider's words, in bytes: enough for every known message, too little
// for a stack trace.
const maxText = 300

// CleanText returns a provider's text for logs and tables: one line of at most 300 bytes,
// without control characters, the given secrets, and words that look like a token or
// signature (OpenIM repeats the refused token in errDlt).
func CleanText(s string, secrets ...string) string {
	s = redactSecrets(s, secrets)
	// Control characters are removed first: one inside a token would split it into words
	// too short to be recognised.
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	// The secrets once more, in case they contained such a character.
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

// redactRuns replaces what looks like a credential, anywhere in a word: a JWT (eyJ…), a
// usersig (eJ… or eA…: zlib in base64), and any other run of at least 32 characters of the
// base64 alphabets.
func redactRuns(s string) string {
	const minOpaque, minPrefixed = 32, 16
	var b strings.Builder
	for len(s) > 0 {
		// A JWT contains dots; elsewhere they are part of host and file names.
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

// isOpaque reports whether c occurs in tokens and signatures, which may be
// percent-encoded.
func isOpaque(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '-' || c == '_' || c == '*' || c == '+' || c == '/' || c == '%'
}
