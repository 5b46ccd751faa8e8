package tencent

import (
	"bytes"
	"compress/zlib"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// userSigEncoding is base64 with three characters replaced so that a UserSig
// needs no escaping in a URL: + by *, / by -, = by _. It is not RFC 4648's
// URL alphabet, in which - and _ mean other things.
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

// sum is the signature proper: HMAC-SHA256 under the bytes of the key as the
// console shows it (not hex-decoded) over four lines in this order.
func (u userSig) sum(key string) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "TLS.identifier:%s\nTLS.sdkappid:%d\nTLS.time:%d\nTLS.expire:%d\n",
		u.Identifier, u.SDKAppID, u.Time, u.Expire)
	return mac.Sum(nil)
}

// sign makes a UserSig (TLSSigAPIv2; see "Generating UserSig"). Apps from before
// July 2019 that still sign with an ECDSA key pair are not supported.
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

// resignPause is the least time between two signatures made because one was
// refused: signing on and on with a wrong key gets the app locked out (70050).
const resignPause = time.Minute

// signer keeps one UserSig and renews it at 80 % of its time to live. Safe for
// concurrent use.
type signer struct {
	appID           uint32
	key, identifier string
	ttl             time.Duration
	now             func() time.Time

	mu               sync.Mutex
	sig              string
	signed, resigned time.Time // when last, and when last because of a refusal
}

// current gives a UserSig that is valid for at least a fifth of its time yet.
func (s *signer) current() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := s.now().Sub(s.signed)
	// A negative age: the clock was set back, and the time signed is not yet.
	if s.sig != "" && age >= 0 && age < s.ttl/5*4 {
		return s.sig, nil
	}
	return s.renew()
}

// replace gives the UserSig to use after refused was refused: the one that
// another call obtained meanwhile, else a new one, else, within a minute of the
// last, the refused one again.
func (s *signer) replace(refused string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sig != refused {
		return s.sig, nil
	}
	now := s.now()
	if since := now.Sub(s.resigned); !s.resigned.IsZero() && since >= 0 && since < resignPause {
		return s.sig, nil
	}
	s.resigned = now
	return s.renew()
}

// renew signs now; the caller holds mu.
func (s *signer) renew() (string, error) {
	now := s.now()
	sig, err := sign(s.appID, s.key, s.identifier, now, s.ttl)
	if err != nil {
		return "", err
	}
	s.sig, s.signed = sig, now
	return sig, nil
}
