package tencent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"syncer/imclient"
)

// call makes one call, and a second one with a new signature when the first is
// refused for its signature; a second refusal is fatal. fresh makes the value
// into which an answer is decoded; it is filled also when the answer is an error
// of the provider's.
func (c *Client) call(ctx context.Context, e endpoint, request any, fresh func() wireReply, sent *int) (imclient.Reply, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return imclient.Reply{}, fmt.Errorf("encode the %s request: %w", e.name, err)
	}
	sig, err := c.signer.current()
	if err != nil {
		return imclient.Reply{}, err
	}
	r, err := c.once(ctx, e, sig, body, fresh(), sent)
	if err == nil || imclient.ClassOf(err) != imclient.ClassUnauthorised {
		return r, err
	}
	if sig, err = c.signer.replace(sig); err != nil {
		return imclient.Reply{}, err
	}
	r, err = c.once(ctx, e, sig, body, fresh(), sent)
	if refused, ok := errors.AsType[*imclient.Error](err); ok && refused.Class == imclient.ClassUnauthorised {
		refused.Class = imclient.ClassFatal
		refused.Text = advise(refused.Text, fixSignature+c.clock.note())
	}
	return r, err
}

// once makes one call and judges the answer.
func (c *Client) once(ctx context.Context, e endpoint, sig string, body []byte, reply wireReply, sent *int) (imclient.Reply, error) {
	target := e.url + c.query + sig + "&random=" + strconv.FormatUint(uint64(rand.Uint32()), 10) + "&contenttype=json"
	r, err := c.http.Post(ctx, imclient.Request{API: e.name, Gate: e.gate, URL: target, Body: body, Sent: sent})
	if err != nil {
		c.http.Judged(e.name, r, err)
		return imclient.Reply{}, err
	}
	if skew, warn := c.clock.see(r); warn {
		c.log.Warn().Str("api", e.name).Dur("skew", skew).
			Msg("the provider's clock differs from ours; signatures may be refused: check the database's clock")
	}
	err = c.judge(e, r, sig, reply)
	c.http.Judged(e.name, r, err)
	if refused, ok := errors.AsType[*imclient.Error](err); ok && refused.Class == imclient.ClassThrottled {
		c.slowDown(ctx, e, sig, refused)
	}
	return r, err
}

// slowDown tells all instances of a rate-limit answer. What goes wrong here is
// logged only: the caller learns of the limit either way.
func (c *Client) slowDown(ctx context.Context, e endpoint, sig string, refused *imclient.Error) {
	if refused.Code == strconv.Itoa(codeLockedOut) {
		// After the pause the next call must not carry the signature again.
		if _, err := c.signer.replace(sig); err != nil {
			c.log.Warn().Err(err).Str("api", e.name).Msg("no new signature could be made")
		}
	}
	if e.gate == nil {
		return
	}
	if err := e.gate.Throttled(ctx, refused.RetryAfter); err != nil && !imclient.IsContext(err) {
		c.log.Warn().Err(err).Str("api", e.name).Msg("the provider's rate limit could not be passed on to the other instances")
	}
}

// judge decodes an answer and gives the error that its code stands for. The HTTP
// status says nothing as long as there is a code.
func (c *Client) judge(e endpoint, r imclient.Reply, sig string, reply wireReply) error {
	err := readReply(r.Body, reply)
	_, wrongType := errors.AsType[*json.UnmarshalTypeError](err)
	if wrongType {
		// All other fields are filled; a user whose fields are not is doubted.
		err = nil
	}
	s := reply.envelope()
	code, codeErr := strconv.Atoi(string(s.ErrorCode))
	failed := &imclient.Error{Provider: imclient.ProviderTencent, API: e.name, HTTPStatus: r.Status}
	switch {
	case err != nil || codeErr != nil:
		if err := c.http.StatusError(e.name, r); err != nil {
			return err
		}
		failed.Text = fmt.Sprintf("the answer (%d bytes) is cut off or no reply of the API", len(r.Body))
		return failed
	case code == 0 && s.ActionStatus == "FAIL":
		failed.Text = "the answer is a failure without a code: " + imclient.CleanText(s.ErrorInfo, sig, c.secretKey)
		return failed
	case code == 0 && wrongType && r.Status == http.StatusOK && !reply.says():
		// As good as no answer: the users are not to blame.
		failed.Text = fmt.Sprintf("the answer (%d bytes) holds values of the wrong type, and no user", len(r.Body))
		return failed
	case code == 0:
		return c.http.StatusError(e.name, r)
	}
	m := meaningOf(code)
	failed.Class = m.class
	failed.Code = strconv.Itoa(code)
	failed.Text = advise(imclient.CleanText(s.ErrorInfo, sig, c.secretKey), m.says)
	failed.RetryAfter = max(r.RetryAfter, pauseOf(code))
	return failed
}

// readReply reads an answer.
func readReply(body []byte, reply wireReply) error {
	if q, ok := reply.(quickReply); ok {
		if q.quick(body) {
			return nil
		}
		q.clear()
	}
	return json.Unmarshal(body, reply)
}

// advise adds our words to the provider's.
func advise(text, ours string) string {
	if text == "" || ours == "" {
		return text + ours
	}
	return text + "; " + ours
}
