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
	token        string // "" for logins
}

// call makes one call as admin, and a second one with a new token when the first
// is refused for its token; a second refusal is fatal. reply is what the answer is
// read into.
func (c *Client) call(ctx context.Context, o outgoing, request any, reply wireReply, sent *int) (imclient.Reply, error) {
	var err error
	if o.body, err = json.Marshal(request); err != nil {
		return imclient.Reply{}, fmt.Errorf("encode the %s request: %w", o.api, err)
	}
	admin, err := c.tokens.get(ctx, "")
	if err != nil {
		return imclient.Reply{}, err
	}
	o.token = admin.text
	r, err := c.send(ctx, o, reply, sent)
	if !c.refuses(err, admin) {
		return r, err
	}
	if admin, err = c.tokens.get(ctx, admin.text); err != nil {
		return imclient.Reply{}, err
	}
	o.token = admin.text
	r, err = c.send(ctx, o, reply, sent)
	if e, ok := errors.AsType[*imclient.Error](err); ok && e.Class == imclient.ClassUnauthorised {
		e.Class, e.Text = imclient.ClassFatal, e.Text+"; "+fixToken
	}
	return r, err
}

// refuses reports whether err means that a new token is needed. "Not valid yet"
// passes by itself, unless the token is so old that it cannot be the clocks'
// ordinary difference.
func (c *Client) refuses(err error, admin token) bool {
	e, ok := errors.AsType[*imclient.Error](err)
	if !ok {
		return false
	}
	notYet := e.Code == strconv.Itoa(codeNotYetValid) && c.now().Sub(admin.issued) > patienceNotYet
	return e.Class == imclient.ClassUnauthorised || notYet
}

// send makes one call and judges its answer. Its operationID is new, and in the
// log and the error, so that the call is found again in the server's own log.
func (c *Client) send(ctx context.Context, o outgoing, reply wireReply, sent *int) (imclient.Reply, error) {
	opID := c.operationID()
	header := http.Header{}
	header.Set("operationID", opID)
	if o.token != "" {
		header.Set("token", o.token)
	}
	r, err := c.http.Post(ctx, imclient.Request{
		API: o.api, Gate: o.gate, URL: c.base + o.path, Header: header, Body: o.body, Sent: sent,
		Answer: func(d *imclient.Decoder) { reply.read(d, o.users) }, Users: o.users, BytesPerUser: o.bytesPerUser,
	})
	answered := err == nil
	if answered {
		err = c.judge(o, r, reply)
	}
	c.http.Judged(o.api, r, err)
	e, failed := errors.AsType[*imclient.Error](err)
	if failed {
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
		c.slowDown(ctx, o, e)
	}
	if err != nil {
		return imclient.Reply{}, err
	}
	return r, nil
}

// operationID makes an id that no other call has. It stays below 32 characters,
// from which on a word in a text is taken for a secret.
func (c *Client) operationID() string {
	return "syncer-" + strconv.FormatInt(c.now().UnixMilli(), 36) + "-" + strconv.FormatUint(rand.Uint64(), 36)
}

// slowDown tells all instances of a rate-limit answer. What goes wrong here is
// told with it: the caller learns of the limit either way.
func (c *Client) slowDown(ctx context.Context, o outgoing, e *imclient.Error) {
	if o.gate == nil {
		return
	}
	if err := o.gate.Throttled(ctx, e.RetryAfter); err != nil && !imclient.IsContext(err) {
		e.Text += "; the other instances could not be told: " + imclient.CleanText(err.Error(), o.token, c.secret)
	}
}

// judge gives the error that an answer's code stands for. Nearly all errors come
// with HTTP 200, and where not there may still be a code; the content type says
// nothing.
func (c *Client) judge(o outgoing, r imclient.Reply, reply wireReply) error {
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
	failed.Text = imclient.CleanText(text, o.token, c.secret)
	failed.RetryAfter = r.RetryAfter
	if failed.Class == imclient.ClassFatal {
		failed.Text += "; " + adviceOn(code)
	}
	return failed
}
