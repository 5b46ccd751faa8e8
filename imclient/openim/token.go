package openim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

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

// patienceNotYet is how long a token that is "not valid yet" may be so.
const patienceNotYet = time.Minute

// login logs in as admin, one login at a time; see imclient.Credentials.
//
// The server's next release lets each login of an admin end the tokens of the
// logins before it, five minutes later. Instances that share an admin user, and
// OpenIM's chat server if it does too, then log in anew every few minutes, which
// works; an admin user of its own per instance avoids it.
type login struct {
	client         *Client
	userID, secret string
	path           int // of loginPaths, the one that worked last
}

// token obtains a token. A refusal is fatal. Transient and rate-limit answers keep
// their class. Logins do not count among a batch's calls: no quota is about them.
func (l *login) token(ctx context.Context) (imclient.Credential, error) {
	for range loginPaths {
		p := loginPaths[l.path]
		body, err := json.Marshal(loginRequest{Secret: l.secret, PlatformID: p.platformID, UserID: l.userID})
		if err != nil {
			return imclient.Credential{}, fmt.Errorf("encode the %s request: %w", p.api, err)
		}
		var reply loginReply
		r, _, err := l.client.send(ctx, outgoing{api: p.api, path: p.path, body: body, login: true}, &reply, nil)
		e, isAnswer := errors.AsType[*imclient.Error](err)
		switch {
		case err == nil && !fitsHeader(reply.Token):
			return imclient.Credential{}, &imclient.Error{Provider: imclient.ProviderOpenIM, API: p.api, Text: "the answer holds no token"}
		case err == nil:
			return newToken(reply.Token, reply.Expire, r.AskedAt), nil
		case isAnswer && e.Code == "" && e.HTTPStatus == http.StatusNotFound:
			l.path = (l.path + 1) % len(loginPaths)
			continue
		case isAnswer && e.Code != "" && e.Class != imclient.ClassTransient && e.Class != imclient.ClassThrottled:
			e.Class = imclient.ClassFatal
			e.Text = "login refused: " + e.Text + "; " + loginAdvice(e.Code)
		}
		return imclient.Credential{}, err
	}
	return imclient.Credential{}, &imclient.Error{Provider: imclient.ProviderOpenIM, API: loginPaths[0].api, Class: imclient.ClassFatal,
		HTTPStatus: http.StatusNotFound, Text: "HTTP 404: " + fixPath}
}

// fitsHeader reports whether a token can be sent. One that cannot would be kept,
// and fail each call, for as long as it lives.
func fitsHeader(token string) bool {
	return token != "" && len(token) <= maxToken && !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}

// newToken dates a token by the time at which it was asked for.
func newToken(text string, lifetime int64, askedAt time.Time) imclient.Credential {
	const century = 100 * 365 * 24 * 3600 // more would overflow a time.Duration before long
	t := imclient.Credential{Text: text, IssuedAt: askedAt}
	if lifetime > 0 {
		d := time.Duration(min(lifetime, century)) * time.Second
		t.RenewAt, t.ExpireAt = askedAt.Add(d/5*4), askedAt.Add(d)
	}
	return t
}
