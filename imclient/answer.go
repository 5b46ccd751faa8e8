package imclient

import "time"

// Observed is what an answer says about one user.
type Observed[V comparable] struct {
	UserID string
	Value  V
}

// UserError is one user whom the provider, or a check before sending, rejects.
// It is a value in an answer, not an error: all other users of the batch count.
type UserError struct {
	UserID string
	Code   string // the provider's code, or one of the Code constants
	Text   string // bounded and scrubbed of secrets
}

// Codes of rejections that no provider makes.
const (
	// CodeInvalidID: the id breaks the provider's rules and was not sent.
	CodeInvalidID = "invalid_id"
	// CodeMissing: the answer says nothing about the id.
	CodeMissing = "missing"
	// CodeUnknownValue: the answer holds no state or status for the id, or one
	// that this version does not know.
	CodeUnknownValue = "unknown_value"
)

// Answer is what one batch came back with. Every id asked about is in exactly
// one of Observed and Rejected when the call returned no error.
type Answer[V comparable] struct {
	Observed []Observed[V]
	Rejected []UserError
	// Unasked counts elements about ids that were not asked for; they are dropped.
	Unasked int
	// UnknownPlatforms counts devices whose platform is not in our vocabulary.
	UnknownPlatforms int
	// AskedAt is when the request was sent: the answer describes no earlier
	// instant. AnsweredAt is when it had arrived: it describes no later one.
	// Both by the clock given to the client.
	AskedAt, AnsweredAt time.Time
	// Calls counts the requests that were sent, also when the call returned an
	// error; logins, which no quota is about, do not count.
	Calls int
}
