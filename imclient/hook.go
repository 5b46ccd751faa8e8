package imclient

import (
	"errors"
	"io"
	"net/url"
	"time"
)

// Hook is one event that a provider reported. It can be lost, doubled, late or wrong, so
// it says only whom to ask about; nothing of it is written but ToldAt.
type Hook struct {
	UserID string
	// State is what the event means for the device: a user with several devices may be in
	// another one. It is StateUnknown if the event does not say.
	State    State
	Platform Platform // of the device; PlatformUnknown if the event does not say
	// Logout reports whether the event announces that a connection of the user ended.
	Logout bool
	// ToldAt is the provider's time of the event, to the millisecond; the zero time if it
	// has none.
	ToldAt time.Time
}

// HookRequest is what a provider's package reads of the request of a hook.
type HookRequest struct {
	// Path is what follows the app's name in the path, without its leading slash.
	Path  string
	Query url.Values
	// Body is read only if Path and Query ask for it, and at most MaxHookBody bytes of it.
	Body io.Reader
	// Now is the time by the database's clock.
	Now time.Time
}

// MaxHookBody limits the body of a hook, in bytes.
const MaxHookBody = 64 << 10

// The kinds of errors of a hook that is not accepted. Their texts, and those of the errors
// that wrap them, hold nothing of the request.
var (
	// ErrHookPath: the provider has no hooks at this path.
	ErrHookPath = errors.New("no such path")
	// ErrHookRefused: the request does not prove that it is the provider's.
	ErrHookRefused = errors.New("refused")
	// ErrHookMalformed: the body of a known command cannot be read.
	ErrHookMalformed = errors.New("malformed")
)

// HookTime returns the time of a number of Unix milliseconds; the zero time for one that no
// event can have.
func HookTime(milliseconds int64) time.Time {
	const latest = 4102444800000 // the year 2100
	if milliseconds <= 0 || milliseconds >= latest {
		return time.Time{}
	}
	return time.UnixMilli(milliseconds).UTC()
}
