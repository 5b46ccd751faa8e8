package openim

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"syncer/imclient"
)

// loginPaths are the ways to log in as administrator. The next one is tried if a server
// answers 404: get_admin_token came with v3.8.1.
var loginPaths = [...]struct {
	api, path  string
	platformID int
}{
	{api: "get_admin_token", path: "/auth/get_admin_token"},
	{api: "user_token", path: "/auth/user_token", platformID: 10},
}

// patienceNotYet is how long a new token may be "not valid yet".
const patienceNotYet = time.Minute

// login logs in as administrator and returns the token. A refusal is fatal; transient
// and rate-limit answers keep their class. imclient.Credentials calls it one login at a
// time.
//
// The server's next release invalidates older tokens of an administrator five minutes
// after a login. Instances that share an administrator, among themselves or with OpenIM's
// chat server, then log in every few minutes, which works; an administrator for each
// instance avoids it.
func (c *Client) login(ctx context.Context) (imclient.Credential, error) {
	for range loginPaths {
		p := loginPaths[c.loginPath]
		var reply loginReply
		r, err := c.exchange.Login(ctx, imclient.Call{API: p.api, URL: c.base + p.path},
			loginRequest{Secret: c.secret, PlatformID: p.platformID, UserID: c.adminUserID}, &reply)
		e, isAnswer := errors.AsType[*imclient.Error](err)
		switch {
		case err == nil && !fitsHeader(reply.Token):
			return imclient.Credential{}, &imclient.Error{Provider: imclient.ProviderOpenIM, API: p.api, Text: "the answer holds no token"}
		case err == nil:
			return newToken(reply.Token, reply.Expire, r.AskedAt), nil
		case isAnswer && e.Code == "" && e.HTTPStatus == http.StatusNotFound:
			c.loginPath = (c.loginPath + 1) % len(loginPaths)
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

// fitsHeader reports whether a token can be sent. One that cannot would be kept for its
// lifetime and fail each call.
func fitsHeader(token string) bool {
	return token != "" && len(token) <= maxToken && !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}

// newToken returns a token of a lifetime in seconds that begins when it was asked for. 0
// and less mean that it has no end.
func newToken(text string, lifetime int64, askedAt time.Time) imclient.Credential {
	const century = 100 * 365 * 24 * 3600 // a few more would overflow a time.Duration
	t := imclient.Credential{Text: text, IssuedAt: askedAt}
	if lifetime > 0 {
		d := time.Duration(min(lifetime, century)) * time.Second
		t.RenewAt, t.ExpireAt = askedAt.Add(d/5*4), askedAt.Add(d)
	}
	return t
}
