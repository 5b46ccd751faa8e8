package imclient

import "time"

// Observed is the value of one user in an answer.
type Observed[V comparable] struct {
	UserID string
	Value  V
}

// UserError is a user that the provider, or a check before sending, rejects. It is part of
// an answer, not an error: the other users of the batch are valid.
type UserError struct {
	UserID string
	Code   string // the provider's code, or one of the Code constants
	Text   string // bounded and scrubbed of secrets
}

// Codes of rejections by syncer itself.
const (
	// CodeInvalidID: the id violates the provider's rules and was not sent.
	CodeInvalidID = "invalid_id"
	// CodeMissing: the answer does not contain the id.
	CodeMissing = "missing"
	// CodeUnknownValue: the answer has no state or status for the id, or an unknown one.
	CodeUnknownValue = "unknown_value"
	// CodeHTTPError: a call about the id alone was answered with an HTTP status and no
	// code of the provider.
	CodeHTTPError = "http_error"
)

// Answer is the result of one batch. Unless the call returned an error, every id of the
// batch is in exactly one of Observed and Rejected.
type Answer[V comparable] struct {
	Observed []Observed[V]
	Rejected []UserError
	// Unasked counts users that were not asked for; they are dropped.
	Unasked int
	// UnknownPlatforms counts devices of a platform without a name here.
	UnknownPlatforms int
	// AskedAt is when the first request was sent, AnsweredAt when the last answer was
	// received, by the client's clock. The answer describes instants between them.
	AskedAt, AnsweredAt time.Time
	// Calls counts the requests sent, also if the call returned an error. Logins, to
	// which no quota applies, do not count.
	Calls int
}
