package openim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
)

// loginPath is one way to log in as admin.
type loginPath struct {
	api, path  string
	platformID int
}

// loginPaths are tried in turn when a server answers 404: get_admin_token came
// with v3.8.1.
var loginPaths = [...]loginPath{
	{api: "get_admin_token", path: "/auth/get_admin_token"},
	{api: "user_token", path: "/auth/user_token", platformID: 10},
}

const (
	// renewRetry is how long a token that could not be renewed ahead of expiry
	// is used before the next try.
	renewRetry = time.Minute
	// patienceNotYet is how long a token that is "not valid yet" may be so.
	patienceNotYet = time.Minute
)

// token is an admin token and when to do something about it.
type token struct {
	text              string
	issued            time.Time
	renewAt, expireAt time.Time // zero: the server named no lifetime
}

// tokens keeps the admin token. One login goes on at a time, and whoever needs
// it waits for its outcome. Safe for concurrent use.
//
// The server's next release lets each login of an admin end the tokens of the
// logins before it, five minutes later. Instances that share an admin user, and
// OpenIM's chat server if it does too, then log in anew every few minutes, which
// works; an admin user of its own per instance avoids it.
type tokens struct {
	send   sender
	userID string
	secret string
	now    func() time.Time
	log    zerolog.Logger

	failures atomic.Int64 // logins that failed
	// turn is a lock that can be waited for with a context; it guards the rest.
	turn    chan struct{}
	held    token
	path    int   // of loginPaths, the one that worked last
	failure error // of the last login that failed
}

// sender makes one call and judges its answer; it is Client.send.
type sender func(ctx context.Context, o outgoing, reply wireReply, sent *int) (imclient.Reply, error)

// get gives a token to use: any but refused, which is "" or one that the server
// has just refused. It logs in when there is none, and ahead of expiry when 80 %
// of the lifetime is over.
func (t *tokens) get(ctx context.Context, refused string) (token, error) {
	return t.after(ctx, t.failures.Load(), refused)
}

// after is get by one who came when so many logins had failed. A login that
// fails while it waits for its turn is its own failure too: it logs in no more.
func (t *tokens) after(ctx context.Context, failures int64, refused string) (token, error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return token{}, ctx.Err()
	}
	now := t.now()
	if refused != "" && t.held.text == refused {
		t.held = token{}
	}
	usable := t.held.text != "" && (t.held.expireAt.IsZero() || now.Before(t.held.expireAt))
	if usable && (t.held.renewAt.IsZero() || now.Before(t.held.renewAt)) {
		return t.held, nil
	}
	if !usable && t.failures.Load() > failures {
		return token{}, t.failure
	}
	fresh, err := t.login(ctx)
	switch {
	case err == nil:
		t.held = fresh
	case ctx.Err() != nil:
		return token{}, err
	case usable:
		t.log.Warn().Err(err).Msg("the admin token could not be renewed ahead of its expiry; the old one is used on")
		t.held.renewAt = now.Add(renewRetry)
	default:
		t.failure = err
		t.failures.Add(1)
		return token{}, err
	}
	return t.held, nil
}

// login obtains a token; the caller holds turn. A refusal is fatal. Transient and
// rate-limit answers keep their class. Logins do not count among a batch's calls:
// no quota is about them.
func (t *tokens) login(ctx context.Context) (token, error) {
	for range loginPaths {
		p := loginPaths[t.path]
		body, err := json.Marshal(loginRequest{Secret: t.secret, PlatformID: p.platformID, UserID: t.userID})
		if err != nil {
			return token{}, fmt.Errorf("encode the %s request: %w", p.api, err)
		}
		var reply loginReply
		r, err := t.send(ctx, outgoing{api: p.api, path: p.path, body: body}, &reply, nil)
		e, isAnswer := errors.AsType[*imclient.Error](err)
		switch {
		case err == nil && !fitsHeader(reply.Token):
			return token{}, &imclient.Error{Provider: imclient.ProviderOpenIM, API: p.api, Text: "the answer holds no token"}
		case err == nil:
			return newToken(reply.Token, reply.Expire, r.AskedAt), nil
		case isAnswer && e.Code == "" && e.HTTPStatus == http.StatusNotFound:
			t.path = (t.path + 1) % len(loginPaths)
			continue
		case isAnswer && e.Code != "" && e.Class != imclient.ClassTransient && e.Class != imclient.ClassThrottled:
			e.Class, e.Text = imclient.ClassFatal, "login refused: "+e.Text+"; "+fixLogin
		}
		return token{}, err
	}
	return token{}, &imclient.Error{Provider: imclient.ProviderOpenIM, API: loginPaths[0].api, Class: imclient.ClassFatal,
		HTTPStatus: http.StatusNotFound, Text: "HTTP 404: " + fixPath}
}

// fitsHeader reports whether a token can be sent. One that cannot would be kept,
// and fail each call, for as long as it lives.
func fitsHeader(token string) bool {
	return token != "" && len(token) <= maxToken && !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}

// newToken dates a token by the time at which it was asked for.
func newToken(text string, lifetime int64, askedAt time.Time) token {
	const century = 100 * 365 * 24 * 3600 // more would overflow a time.Duration before long
	t := token{text: text, issued: askedAt}
	if lifetime > 0 {
		d := time.Duration(min(lifetime, century)) * time.Second
		t.renewAt, t.expireAt = askedAt.Add(d/5*4), askedAt.Add(d)
	}
	return t
}
