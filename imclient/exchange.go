package imclient

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/rs/zerolog"
)

// Exchange makes the calls of one account with a provider: it signs them, classifies
// the answers, renews a refused credential, lowers the rate of all instances after a
// rate-limit answer, and logs each call at debug level. Its functions are what
// distinguishes the providers. Safe for concurrent use.
type Exchange struct {
	HTTP        *HTTP
	Credentials *Credentials
	Secret      string // removed from all texts, as the credential is
	Log         zerolog.Logger

	// NewID returns the id of a call, with which the provider's support or log finds it.
	NewID func() string
	// IDName is the id's name in the log. If TraceID, errors carry the id as OpID too.
	IDName  string
	TraceID bool
	// Sign adds the call's id, and the credential unless it is "", to a request.
	Sign func(r *http.Request, id, credential string)
	// Meaning classifies a code, with the HTTP status and the words beside it.
	Meaning func(code, httpStatus int, text string) Meaning
	// Refuses reports whether a code refuses the credential, besides those of
	// ClassUnauthorised.
	Refuses func(code string, c Credential) bool
	// Advice returns what the operator can do if renewing the credential does not help.
	Advice func() string
	// SelfSigned reports whether credentials are made without the provider. Two refused
	// ones are then final if none has been accepted yet.
	SelfSigned bool
	// Seen, if not nil, is called with each answer.
	Seen func(api string, r Reply)
}

// Meaning is what a provider's code means.
type Meaning struct {
	Class Class
	Says  string        // what to do about it, or what it says of a user; "" if the class says all
	Pause time.Duration // how long the provider asks not to be called
}

// Call describes the calls of an API; see httpRequest. Ask adds the users of one call.
type Call struct {
	API, URL     string
	Gate         *Gate
	MaxUsers     int // of one call
	BytesPerUser int

	users int
	sent  *int
}

// Do makes a call with request as its JSON body and reads the answer into body, also if
// the answer is an error of the provider. If the credential is refused, Do makes the
// call once more with a new one. If that one is refused as well, the error is transient,
// because a credential that worked before may work again; it is fatal once several
// refusals over half a minute have shown otherwise.
//
// Errors are the context's or an *Error. The reply is zero if there was no answer.
func (x *Exchange) Do(ctx context.Context, c Call, request any, body Body) (Reply, error) {
	for again := false; ; again = true {
		r, used, err := x.once(ctx, c, request, body, false)
		verdict := x.verdict(err, used)
		hopeless := x.Credentials.Settle(used, verdict) || again && verdict == Refused && x.SelfSigned && x.Credentials.Unproven()
		e, _ := errors.AsType[*Error](err)
		switch {
		case verdict != Refused || e.Class == ClassThrottled:
			return r, err
		case !again && !hopeless:
			continue
		}
		if e.Class = ClassTransient; hopeless {
			e.Class, e.Text = ClassFatal, advise(e.Text, x.Advice())
		}
		return r, err
	}
}

// Login makes a call that carries no credential, such as one that obtains it. Its errors
// are those of Do.
func (x *Exchange) Login(ctx context.Context, c Call, request any, body Body) (Reply, error) {
	r, _, err := x.once(ctx, c, request, body, true)
	return r, err
}

// once makes one call. It returns the credential that was sent, which must be settled.
func (x *Exchange) once(ctx context.Context, c Call, request any, body Body, login bool) (Reply, Credential, error) {
	encoded, err := json.Marshal(request)
	if err != nil {
		return Reply{}, Credential{}, fmt.Errorf("encode the %s request: %w", c.API, err)
	}
	body.Reset() // the call may fail before there is an answer to read
	id := x.NewID()
	var used Credential
	r, err := x.HTTP.post(ctx, httpRequest{
		API: c.API, Gate: c.Gate, URL: c.URL, Body: encoded, Sent: c.sent,
		Authorise: func(ctx context.Context, r *http.Request) (err error) {
			if !login {
				x.Credentials.Settle(used, Unknown) // that of before a further wait
				if used, err = x.Credentials.Get(ctx); err != nil {
					return err
				}
			}
			x.Sign(r, id, used.Text)
			return nil
		},
		Answer: func(d *Decoder) { d.Answer(body, c.users) }, Users: c.users, BytesPerUser: c.BytesPerUser,
	})
	answered := err == nil
	if answered {
		err = x.judge(c, r, body.Envelope(), used.Text, login)
	}
	x.HTTP.judged(c.API, r, err)
	e, failed := errors.AsType[*Error](err)
	if failed && x.TraceID && e.OpID == "" { // a login's has its own already
		e.OpID = id
	}
	if !r.AskedAt.IsZero() { // sent
		event := x.Log.Debug().Str("api", c.API).Str(x.IDName, id).Int("users", c.users).Int("status", r.Status).
			Dur("dur_ms", r.AnsweredAt.Sub(r.AskedAt))
		if failed {
			event.Str("class", e.Class.String()).Str("code", e.Code)
		}
		event.Msg("call")
	}
	if !answered {
		return Reply{}, used, err
	}
	if x.Seen != nil {
		x.Seen(c.API, r)
	}
	if failed && e.Class == ClassThrottled {
		x.slowDown(ctx, c.Gate, used.Text, e)
	}
	return r, used, err
}

// verdict returns what became of a call's credential.
func (x *Exchange) verdict(err error, used Credential) Verdict {
	e, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return Accepted
	case !ok || e.Code == "":
		return Unknown
	case e.Class == ClassUnauthorised || x.Refuses(e.Code, used):
		return Refused
	case e.Class == ClassTransient || e.Class == ClassThrottled:
		return Unknown // the service that checks credentials may itself be down
	default:
		return Accepted
	}
}

// judge returns the error that an answer stands for, nil if it is a success. If the
// answer has a code, its HTTP status says nothing.
func (x *Exchange) judge(c Call, r Reply, said Envelope, credential string, login bool) error {
	code, codeErr := strconv.Atoi(said.Code)
	e := &Error{Provider: x.HTTP.provider, API: c.API, HTTPStatus: r.Status}
	switch {
	case r.Fault != "" || codeErr != nil:
		if err := x.HTTP.statusError(c.API, r); err != nil {
			return err
		}
		e.Text = cmp.Or(r.Fault, noAnswer(r.Bytes))
		return e
	case code == 0 && said.Failed:
		e.Text = "the answer is a failure without a code: " + CleanText(said.Text, credential, x.Secret)
		return e
	case code == 0 && r.WrongType && r.Status == http.StatusOK && r.Named == 0 && c.users > 0:
		// As good as no answer: the users are not to blame.
		e.Text = fmt.Sprintf("the answer (%d bytes) holds values of the wrong type, and no user", r.Bytes)
		return e
	case code == 0:
		return x.HTTP.statusError(c.API, r)
	}
	m := x.Meaning(code, r.Status, said.Text)
	if login {
		m.Says = ""
	}
	e.Class, e.Code = m.Class, strconv.Itoa(code)
	e.Text = advise(CleanText(said.Text, credential, x.Secret), m.Says)
	e.RetryAfter = max(r.RetryAfter, m.Pause)
	return e
}

// slowDown lowers the rate of all instances after a rate-limit answer. A failure to do
// so is added to the answer's error.
func (x *Exchange) slowDown(ctx context.Context, gate *Gate, credential string, e *Error) {
	if gate == nil {
		return
	}
	if err := gate.Throttled(ctx, e.RetryAfter); err != nil && !IsContext(err) {
		e.Text = advise(e.Text, "the other instances could not be notified: "+CleanText(err.Error(), credential, x.Secret))
	}
}

// Clean returns CleanText of the provider's words.
func (x *Exchange) Clean(text string) string { return CleanText(text, x.Secret) }

// Quote returns a provider's word in quotes, for a text.
func (x *Exchange) Quote(word string) string { return strconv.Quote(x.Clean(word)) }

// advise adds our words to the provider's.
func advise(text, ours string) string {
	if text == "" || ours == "" {
		return text + ours
	}
	return text + "; " + ours
}
