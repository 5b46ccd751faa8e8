package tencent

import (
	"bytes"
	"compress/zlib"
	"crypto/hmac"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// vector is a UserSig made by other implementations, under made-up keys.
type vector struct {
	Name         string
	SDKAppID     uint32
	Key          string
	Identifier   string
	Time, Expire int64
	Sig          []byte
	Zlib6        string `json:"usersig_zlib6"`
	Zlib0        string `json:"usersig_zlib0"`
}

func (v vector) doc() userSig {
	return userSig{Version: "2.0", Identifier: v.Identifier, SDKAppID: v.SDKAppID, Expire: v.Expire, Time: v.Time, Sig: v.Sig}
}

func vectors(t *testing.T) []vector {
	t.Helper()
	file, err := os.ReadFile("testdata/usersig_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(file, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no vectors")
	}
	return all
}

// decode takes a UserSig apart as a server does, of any compression level.
func decode(t *testing.T, sig string) userSig {
	t.Helper()
	packed, err := userSigEncoding.DecodeString(sig)
	if err != nil {
		t.Fatalf("decode %d characters: %v", len(sig), err)
	}
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(doc))
	decoder.DisallowUnknownFields()
	var u userSig
	if err := decoder.Decode(&u); err != nil {
		t.Fatalf("%v in %s", err, doc)
	}
	return u
}

func TestSign_vectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			for level, theirs := range map[string]string{"6": v.Zlib6, "0": v.Zlib0} {
				if diff := cmp.Diff(v.doc(), decode(t, theirs)); diff != "" {
					t.Errorf("theirs, zlib level %s (-want +got):\n%s", level, diff)
				}
			}
			if got := v.doc().sum(v.Key); !hmac.Equal(got, v.Sig) {
				t.Errorf("sum %x, want %x", got, v.Sig)
			}
			if hmac.Equal(v.doc().sum(v.Key+"x"), v.Sig) {
				t.Error("another key has the same sum")
			}
			ours, err := sign(v.SDKAppID, v.Key, v.Identifier, time.Unix(v.Time, 0), time.Duration(v.Expire)*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v.doc(), decode(t, ours)); diff != "" {
				t.Errorf("ours (-want +got):\n%s", diff)
			}
			const urlSafe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789*-_"
			if rest := strings.Trim(ours, urlSafe); rest != "" {
				t.Errorf("holds %q, which a URL would need escaped", rest)
			}
		})
	}
}

func TestUserSigEncoding(t *testing.T) {
	for want, in := range map[string][]byte{"*-*-": {0xfb, 0xff, 0xbf}, "-w__": {0xff}} {
		if got := userSigEncoding.EncodeToString(in); got != want {
			t.Errorf("%x is written %s, want %s", in, got, want)
		}
	}
}

// newTestSigner signs by a clock that the test sets.
func newTestSigner(now *time.Time) *signer {
	return &signer{appID: 1400000000, key: "key", identifier: "administrator", ttl: 10 * time.Hour, now: func() time.Time { return *now }}
}

// TestSigner: two signatures are never the same, nor dated far from now.
func TestSigner(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := newTestSigner(&now)
	for i, step := range []struct {
		after time.Duration
		want  int64 // after now, in seconds
	}{{0, 0}, {100 * time.Millisecond, 1}, {100 * time.Millisecond, 2}, {time.Minute, 0}, {-time.Hour, 0}} {
		now = now.Add(step.after)
		c, err := s.sign(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(t, c.Text).Time - now.Unix(); got != step.want {
			t.Errorf("signature %d is dated %d s from now, want %d", i, got, step.want)
		}
		if !c.IssuedAt.Equal(now) || c.RenewAt.Sub(now) != 8*time.Hour || c.ExpireAt.Sub(now) != 10*time.Hour {
			t.Errorf("signature %d: %+v", i, c)
		}
	}
}
