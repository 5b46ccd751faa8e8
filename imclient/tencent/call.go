package tencent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"syncer/imclient"
)

// maxUserBytes is the most that an answer may have about each user, on average: its
// id of at most 32 bytes, two states, and a line of 50 bytes for each of a dozen
// platforms.
const maxUserBytes = 1 << 10

// outgoing is one call to make.
type outgoing struct {
	endpoint
	users int // asked about
	body  []byte
	sent  *int // see imclient.Request
}

// call makes one call, and a second one with a new signature when the first is
// refused for its signature. That the second is refused, too, may pass, if the key
// was good before: then it is transient, unless several signatures over half a
// minute have brought no success. reply is what the answer is read into, also when
// it is an error of the provider's.
func (c *Client) call(ctx context.Context, o outgoing, request any, reply wireReply) (imclient.Reply, error) {
	var err error
	if o.body, err = json.Marshal(request); err != nil {
		return imclient.Reply{}, fmt.Errorf("encode the %s request: %w", o.name, err)
	}
	for again := false; ; again = true {
		r, sig, err := c.once(ctx, o, reply)
		verdict := verdict(err)
		hopeless := c.signatures.Settle(sig, verdict) || again && verdict == imclient.Refused && c.signatures.Unproven()
		e, failed := errors.AsType[*imclient.Error](err)
		switch {
		case !failed || e.Class != imclient.ClassUnauthorised:
			return r, err
		case !again && !hopeless:
			continue
		}
		if e.Class = imclient.ClassTransient; hopeless {
			e.Class = imclient.ClassFatal
			e.Text = advise(e.Text, fixSignature+c.clock.note())
		}
		return r, err
	}
}

// verdict says what became of a call's signature.
func verdict(err error) imclient.Verdict {
	e, ok := errors.AsType[*imclient.Error](err)
	switch {
	case err == nil:
		return imclient.Accepted
	case !ok || e.Code == "":
		return imclient.Unknown
	case e.Class == imclient.ClassUnauthorised || e.Code == strconv.Itoa(codeLockedOut):
		// After the pause of a lock-out the next call must not carry it again.
		return imclient.Refused
	case e.Class == imclient.ClassTransient || e.Class == imclient.ClassThrottled:
		return imclient.Unknown // what looks at signatures may itself be down
	default:
		return imclient.Accepted
	}
}

// once makes one call, judges the answer and logs what came of it. The number by
// which the provider can find the call again is that of its query, random. It
// returns the signature that was sent, which must be settled.
func (c *Client) once(ctx context.Context, o outgoing, reply wireReply) (imclient.Reply, imclient.Credential, error) {
	random := strconv.FormatUint(uint64(rand.Uint32()), 10)
	var sig imclient.Credential
	reply.reset()
	r, err := c.http.Post(ctx, imclient.Request{
		API: o.name, Gate: o.gate, URL: o.url, Body: o.body, Sent: o.sent,
		Authorise: func(ctx context.Context, r *http.Request) (err error) {
			c.signatures.Settle(sig, imclient.Unknown) // the one of before a further wait
			if sig, err = c.signatures.Get(ctx); err == nil {
				r.URL.RawQuery = c.query + sig.Text + "&random=" + random + "&contenttype=json"
			}
			return err
		},
		Answer: func(d *imclient.Decoder) { reply.read(d, o.users) }, Users: o.users, BytesPerUser: maxUserBytes,
	})
	answered := err == nil
	if answered {
		err = c.judge(o.endpoint, r, sig.Text, reply)
	}
	c.http.Judged(o.name, r, err)
	if r.AskedAt.IsZero() {
		return imclient.Reply{}, sig, err // never sent
	}
	event := c.log.Debug().Str("api", o.name).Str("random", random).Int("users", o.users).Int("status", r.Status).
		Dur("dur_ms", r.AnsweredAt.Sub(r.AskedAt))
	refused, failed := errors.AsType[*imclient.Error](err)
	if failed {
		event.Str("class", refused.Class.String()).Str("code", refused.Code)
	}
	event.Msg("call")
	if !answered {
		return imclient.Reply{}, sig, err
	}
	if skew, warn := c.clock.see(r); warn {
		c.log.Warn().Str("api", o.name).Dur("skew", skew).
			Msg("the provider's clock differs from ours; signatures may be refused: check the database's clock")
	}
	if failed && refused.Class == imclient.ClassThrottled {
		c.slowDown(ctx, o.endpoint, sig.Text, refused)
	}
	return r, sig, err
}

// slowDown tells all instances of a rate-limit answer. What goes wrong here is
// told with it: the caller learns of the limit either way.
func (c *Client) slowDown(ctx context.Context, e endpoint, sig string, refused *imclient.Error) {
	if e.gate == nil {
		return
	}
	if err := e.gate.Throttled(ctx, refused.RetryAfter); err != nil && !imclient.IsContext(err) {
		refused.Text = advise(refused.Text, "the other instances could not be told: "+imclient.CleanText(err.Error(), sig, c.secretKey))
	}
}

// judge gives the error that an answer's code stands for. The HTTP status says
// nothing as long as there is a code.
func (c *Client) judge(e endpoint, r imclient.Reply, sig string, reply wireReply) error {
	s := reply.envelope()
	code, codeErr := strconv.Atoi(s.ErrorCode)
	failed := &imclient.Error{Provider: imclient.ProviderTencent, API: e.name, HTTPStatus: r.Status}
	switch {
	case r.Fault != "" || codeErr != nil:
		if err := c.http.StatusError(e.name, r); err != nil {
			return err
		}
		failed.Text = cmp.Or(r.Fault, fmt.Sprintf("the answer (%d bytes) is cut off or no reply of the API", r.Bytes))
		return failed
	case code == 0 && s.ActionStatus == "FAIL":
		failed.Text = "the answer is a failure without a code: " + imclient.CleanText(s.ErrorInfo, sig, c.secretKey)
		return failed
	case code == 0 && r.WrongType && r.Status == http.StatusOK && !reply.says():
		// As good as no answer: the users are not to blame.
		failed.Text = fmt.Sprintf("the answer (%d bytes) holds values of the wrong type, and no user", r.Bytes)
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

// advise adds our words to the provider's.
func advise(text, ours string) string {
	if text == "" || ours == "" {
		return text + ours
	}
	return text + "; " + ours
}
