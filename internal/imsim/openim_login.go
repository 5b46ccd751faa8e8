package imsim

import (
	"encoding/json"
	"strconv"
	"time"
)

// login is the body of the login calls; names are case-sensitive.
type login struct{ secret, userID, token string }

func readLogin(body []byte) (login, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return login{}, err
	}
	var l login
	for name, value := range map[string]*string{"secret": &l.secret, "userID": &l.userID, "token": &l.token} {
		if err := json.Unmarshal(orNull(fields[name]), value); err != nil {
			return login{}, err
		}
	}
	return l, nil
}

// adminToken answers get_admin_token, which only the admin may call.
func (o *openIM) adminToken(b []byte, c *call) ([]byte, *failure) {
	l, err := readLogin(c.body)
	switch {
	case err != nil:
		return nil, o.missing(err.Error())
	case l.secret != o.config.Secret:
		return nil, o.badSecret()
	case l.userID != o.config.AdminUserID:
		return nil, o.fromService(1001, "ArgsError", "userID is error., userID="+l.userID+", adminUserID=["+o.config.AdminUserID+"]")
	}
	return o.appendToken(b, l.userID, adminPlatform), nil
}

// userToken answers user_token of servers before 3.8.1: with the secret a client gets
// a token for any account.
func (o *openIM) userToken(b []byte, c *call) ([]byte, *failure) {
	l, err := readLogin(c.body)
	var platform struct {
		ID int `json:"platformID"`
	}
	switch {
	case err != nil:
		return nil, o.missing(err.Error())
	case json.Unmarshal(c.body, &platform) != nil || platform.ID <= 0 || platform.ID > 11:
		return nil, o.missing("platformID is invalid")
	case l.secret != o.config.Secret:
		return nil, o.badSecret()
	case l.userID == "":
		return nil, o.missing("userID is empty")
	case !o.knows(c, l.userID):
		const text = "1004 userID not found: 1004 RecordNotFoundError"
		return nil, &failure{code: 1004, text: text + " userID not found: 1004 RecordNotFoundError", detail: text + " userID not found: 1004 RecordNotFoundError"}
	}
	return o.appendToken(b, l.userID, platform.ID), nil
}

func (o *openIM) badSecret() *failure {
	f := o.fromService(1002, "NoPermissionError", "secret invalid")
	f.why = unauthorised
	return f
}

func (o *openIM) appendToken(b []byte, userID string, platform int) []byte {
	token := o.tokens.issue(userID, platform, o.config.TokenTTL, o.server.now())
	b = append(b, openIMHead+`{"token":"`...)
	b = append(b, token...)
	b = append(b, `","expireTimeSeconds":`...)
	b = strconv.AppendInt(b, int64(o.config.TokenTTL/time.Second), 10)
	return append(b, `}}`...)
}

// parseToken answers parse_token. Its expireTimeSeconds is an instant; that of a
// login is a duration.
func (o *openIM) parseToken(b []byte, c *call) ([]byte, *failure) {
	l, err := readLogin(c.body)
	if err != nil {
		return nil, o.missing(err.Error())
	}
	claims, why := o.tokens.check(l.token, o.server.now())
	if why != nil {
		return nil, o.tokenFailure(why, l.token)
	}
	b = append(b, openIMHead+`{"userID":`...)
	b = appendJSONString(b, claims.UserID)
	b = append(b, `,"platformID":`...)
	b = strconv.AppendInt(b, int64(claims.PlatformID), 10)
	b = append(b, `,"expireTimeSeconds":`...)
	b = strconv.AppendInt(b, claims.Expires, 10)
	return append(b, `}}`...), nil
}
