package imsim

import (
	"bytes"
	"compress/zlib"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// sigEncoding is base64 with Tencent's replacements: + is *, / is -, = is _.
var sigEncoding = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789*-").WithPadding('_')

// maxSig bounds an inflated UserSig; real ones have about 200 bytes.
const maxSig = 16 << 10

// userSig is the content of a UserSig (TLSSigAPIv2): zlib-compressed JSON.
type userSig struct {
	Version    string  `json:"TLS.ver"`
	Identifier *string `json:"TLS.identifier"`
	SDKAppID   *uint64 `json:"TLS.sdkappid"`
	Expire     *int64  `json:"TLS.expire"` // seconds after Time
	Time       *int64  `json:"TLS.time"`   // Unix seconds
	Sig        string  `json:"TLS.sig"`
}

// parseUserSig decodes and inflates a UserSig. It does not verify it.
func parseUserSig(s string) (userSig, error) {
	var sig userSig
	packed, err := sigEncoding.DecodeString(s)
	if err != nil {
		return sig, fmt.Errorf("decode: %w", err)
	}
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return sig, fmt.Errorf("inflate: %w", err)
	}
	defer z.Close()
	content, err := io.ReadAll(io.LimitReader(z, maxSig))
	if err != nil {
		return sig, fmt.Errorf("inflate: %w", err)
	}
	if err := json.Unmarshal(content, &sig); err != nil {
		return sig, fmt.Errorf("parse: %w", err)
	}
	// Unmarshal accepts keys in any case, unlike the real servers.
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(content, &keys); err != nil {
		return sig, fmt.Errorf("parse: %w", err)
	}
	for _, key := range []string{"TLS.ver", "TLS.identifier", "TLS.sdkappid", "TLS.expire", "TLS.time", "TLS.sig"} {
		if _, ok := keys[key]; !ok {
			return sig, fmt.Errorf("parse: %s is missing", key)
		}
	}
	if sig.Version != "2.0" || sig.Identifier == nil || sig.SDKAppID == nil || sig.Expire == nil || sig.Time == nil || sig.Sig == "" {
		return sig, fmt.Errorf("parse: a field is null or TLS.ver is not 2.0")
	}
	return sig, nil
}

// signedBy reports whether the signature of these fields was made with the key.
func (sig userSig) signedBy(key string) bool {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "TLS.identifier:%s\nTLS.sdkappid:%d\nTLS.time:%d\nTLS.expire:%d\n",
		*sig.Identifier, *sig.SDKAppID, *sig.Time, *sig.Expire)
	got, err := base64.StdEncoding.DecodeString(sig.Sig)
	return err == nil && hmac.Equal(got, mac.Sum(nil))
}

// expired reports whether the signature is no longer valid. It is valid up to the
// second Time+Expire, inclusive. Future ones are accepted: the real servers'
// tolerance is not documented.
func (sig userSig) expired(now time.Time) bool { return now.Unix() > *sig.Time+*sig.Expire }
