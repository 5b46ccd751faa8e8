package openim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	"syncer/imclient"
)

// outgoing is one call to make.
type outgoing struct {
	api, path string
	gate      *imclient.Gate
	users     int // asked about
	// bytesPerUser is the most that an answer has for each, on average.
	bytesPerUser int
	body         []byte
	login        bool // needs no token
}

// call makes one call as admin, and a second one with a new token when the first
// is refused for its token. That the second is refused, too, may pass: then it is
// transient, unless several logins over half a minute have brought no success.
// reply is what the answer is read into.
func (c *Client) call(ctx context.Context, o outgoing, request any, reply wireReply, sent *int) (imclient.Reply, error) {
	var err error
	if o.body, err = json.Marshal(request); err != nil {
		return imclient.Reply{}, fmt.Errorf("encode the %s request: %w", o.api, err)
	}
	for again := false; ; again = true {
		r, admin, err := c.send(ctx, o, reply, sent)
		verdict := c.verdict(err, admin)
		hopeless := c.tokens.Settle(admin, verdict)
		switch {
		case verdict != imclient.Refused:
			return r, err
		case !again && !hopeless:
			continue
		}
		e, _ := errors.AsType[*imclient.Error](err)
		if e.Class = imclient.ClassTransient; hopeless {
			e.Class, e.Text = imclient.ClassFatal, e.Text+"; "+fixToken
		}
		return r, err
	}
}

// verdict says what became of a call's token. "Not valid yet" passes by itself,
// unless the token is so old that it cannot be the clocks' ordinary difference.
func (c *Client) verdict(err error, admin imclient.Credential) imclient.Verdict {
	e, ok := errors.AsType[*imclient.Error](err)
	switch {
	case err == nil:
		return imclient.Accepted
	case !ok || e.Code == "":
		return imclient.Unknown
	case e.Class == imclient.ClassUnauthorised,
		e.Code == strconv.Itoa(codeNotYetValid) && c.now().Sub(admin.IssuedAt) > patienceNotYet:
		return imclient.Refused
	case e.Class == imclient.ClassTransient || e.Class == imclient.ClassThrottled:
		return imclient.Unknown // what looks at tokens may itself be down
	default:
		return imclient.Accepted
	}
}

// send makes one call and judges its answer. Its operationID is new, and in the
// log and the error, so that the call is found again in the server's own log. It
// returns the token that was sent, which must be settled.
func (c *Client) send(ctx context.Context, o outgoing, reply wireReply, sent *int) (imclient.Reply, imclient.Credential, error) {
	opID := c.operationID()
	header := http.Header{}
	header.Set("operationID", opID)
	var admin imclient.Credential
	authorise := func(ctx context.Context, r *http.Request) (err error) {
		c.tokens.Settle(admin, imclient.Unknown) // the one of before a further wait
		if admin, err = c.tokens.Get(ctx); err == nil {
			r.Header.Set("token", admin.Text)
		}
		return err
	}
	if o.login {
		authorise = nil
	}
	r, err := c.http.Post(ctx, imclient.Request{
		API: o.api, Gate: o.gate, URL: c.base + o.path, Header: header, Authorise: authorise, Body: o.body, Sent: sent,
		Answer: func(d *imclient.Decoder) { reply.read(d, o.users) }, Users: o.users, BytesPerUser: o.bytesPerUser,
	})
	answered := err == nil
	if answered {
		err = c.judge(o, r, admin.Text, reply)
	}
	c.http.Judged(o.api, r, err)
	e, failed := errors.AsType[*imclient.Error](err)
	if failed && e.OpID == "" { // else it is that of a login
		e.OpID = opID
	}
	if !r.AskedAt.IsZero() { // it was sent
		event := c.log.Debug().Str("api", o.api).Str("operation_id", opID).Int("users", o.users).Int("status", r.Status).
			Dur("dur_ms", r.AnsweredAt.Sub(r.AskedAt))
		if failed {
			event.Str("class", e.Class.String()).Str("code", e.Code)
		}
		event.Msg("call")
	}
	if failed && answered && e.Class == imclient.ClassThrottled {
		c.slowDown(ctx, o, admin.Text, e)
	}
	if err != nil {
		return imclient.Reply{}, admin, err
	}
	return r, admin, nil
}

// operationID makes an id that no other call has. It stays below 32 characters,
// from which on a word in a text is taken for a secret.
func (c *Client) operationID() string {
	return "syncer-" + strconv.FormatInt(c.now().UnixMilli(), 36) + "-" + strconv.FormatUint(rand.Uint64(), 36)
}

// slowDown tells all instances of a rate-limit answer. What goes wrong here is
// told with it: the caller learns of the limit either way.
func (c *Client) slowDown(ctx context.Context, o outgoing, token string, e *imclient.Error) {
	if o.gate == nil {
		return
	}
	if err := o.gate.Throttled(ctx, e.RetryAfter); err != nil && !imclient.IsContext(err) {
		e.Text += "; the other instances could not be told: " + imclient.CleanText(err.Error(), token, c.secret)
	}
}

// judge gives the error that an answer's code stands for. Nearly all errors come
// with HTTP 200, and where not there may still be a code; the content type says
// nothing.
func (c *Client) judge(o outgoing, r imclient.Reply, token string, reply wireReply) error {
	s := reply.envelope()
	code, codeErr := strconv.Atoi(s.Code)
	failed := &imclient.Error{Provider: imclient.ProviderOpenIM, API: o.api, HTTPStatus: r.Status}
	switch {
	case r.Fault != "" || codeErr != nil:
		if err := c.http.StatusError(o.api, r); err != nil {
			return err
		}
		failed.Text = cmp.Or(r.Fault, fmt.Sprintf("the answer (%d bytes) is cut off or no reply of the API", r.Bytes))
		return failed
	case code == 0 && r.WrongType && r.Status == http.StatusOK && !reply.says():
		// As good as no answer: the users are not to blame.
		failed.Text = fmt.Sprintf("the answer (%d bytes) holds values of the wrong type, and no user", r.Bytes)
		return failed
	case code == 0:
		return c.http.StatusError(o.api, r)
	}
	text := s.Msg
	if s.Detail != "" && !strings.Contains(s.Msg, s.Detail) {
		text += ": " + s.Detail
	}
	failed.Class = classOf(code, r.Status, text)
	failed.Code = strconv.Itoa(code)
	failed.Text = imclient.CleanText(text, token, c.secret)
	failed.RetryAfter = r.RetryAfter
	if failed.Class == imclient.ClassFatal && !o.login {
		failed.Text += "; " + adviceOn(code)
	}
	return failed
}
