package tencent

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"syncer/imclient"
)

// userSigEncoding is base64 with * for +, - for / and _ for =, so that a UserSig needs no
// escaping in a URL. RFC 4648's URL alphabet is a different one.
var userSigEncoding = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789*-").WithPadding('_')

// userSig is the document inside a UserSig.
type userSig struct {
	Version    string `json:"TLS.ver"`
	Identifier string `json:"TLS.identifier"`
	SDKAppID   uint32 `json:"TLS.sdkappid"`
	Expire     int64  `json:"TLS.expire"` // seconds for which it is valid
	Time       int64  `json:"TLS.time"`   // Unix seconds
	Sig        []byte `json:"TLS.sig"`    // written as padded standard base64
}

// sum returns the signature: HMAC-SHA256 of four lines, in this order, with the key as the
// console shows it (not hex-decoded).
func (u userSig) sum(key string) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "TLS.identifier:%s\nTLS.sdkappid:%d\nTLS.time:%d\nTLS.expire:%d\n",
		u.Identifier, u.SDKAppID, u.Time, u.Expire)
	return mac.Sum(nil)
}

// sign returns a UserSig (TLSSigAPIv2). Apps from before July 2019 that still sign with an
// ECDSA key pair are not supported. Source: "Generating UserSig".
func sign(appID uint32, key, identifier string, at time.Time, ttl time.Duration) (string, error) {
	u := userSig{Version: "2.0", Identifier: identifier, SDKAppID: appID, Expire: int64(ttl / time.Second), Time: at.Unix()}
	u.Sig = u.sum(key)
	doc, err := json.Marshal(u)
	if err != nil {
		return "", fmt.Errorf("encode the UserSig: %w", err)
	}
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	if _, err := z.Write(doc); err != nil {
		return "", fmt.Errorf("compress the UserSig: %w", err)
	}
	if err := z.Close(); err != nil {
		return "", fmt.Errorf("compress the UserSig: %w", err)
	}
	return userSigEncoding.EncodeToString(packed.Bytes()), nil
}

// signer makes the signatures of one account.
type signer struct {
	appID           uint32
	key, identifier string
	ttl             time.Duration
	now             func() time.Time

	last time.Time // of the last signature
}

// sign returns the next UserSig, to be renewed at 80 % of its life. Two signatures of one
// second would be equal and be refused alike, so the later one is dated a second later,
// unless the clock was set back.
func (s *signer) sign(context.Context) (imclient.Credential, error) {
	now := s.now()
	at := now.Truncate(time.Second)
	if ahead := s.last.Sub(at); ahead >= 0 && ahead < 10*time.Second {
		at = s.last.Add(time.Second)
	}
	text, err := sign(s.appID, s.key, s.identifier, at, s.ttl)
	if err != nil {
		return imclient.Credential{}, err
	}
	s.last = at
	return imclient.Credential{Text: text, IssuedAt: now, RenewAt: now.Add(s.ttl / 5 * 4), ExpireAt: now.Add(s.ttl)}, nil
}
