package tencent

import (
	"bytes"
	"compress/zlib"
	"crypto/hmac"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"
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
				t.Error("another key gives the same sum")
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

func mustSign(t *testing.T, sign func() (string, error)) string {
	t.Helper()
	sig, err := sign()
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func TestSigner_renewsAheadOfExpiry(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := newTestSigner(&now)
	first := mustSign(t, s.current)
	now = now.Add(8*time.Hour - time.Second)
	if mustSign(t, s.current) != first {
		t.Error("renewed before 80 % of the time to live")
	}
	now = now.Add(time.Second)
	second := mustSign(t, s.current)
	if second == first {
		t.Error("not renewed at 80 % of the time to live")
	}
	if got := decode(t, second).Time; got != now.Unix() {
		t.Errorf("signed for %d, want %d", got, now.Unix())
	}
	now = now.Add(-time.Hour)
	if got := decode(t, mustSign(t, s.current)).Time; got != now.Unix() {
		t.Errorf("after the clock was set back the signature is from %d, the future; now is %d", got, now.Unix())
	}
}

func TestSigner_replace(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := newTestSigner(&now)
	replace := func(refused string) func() (string, error) {
		return func() (string, error) { return s.replace(refused) }
	}
	first := mustSign(t, s.current)
	now = now.Add(time.Second)
	second := mustSign(t, replace(first))
	if second == first {
		t.Fatal("no new signature after a refusal")
	}
	now = now.Add(time.Second)
	if got := mustSign(t, replace(first)); got != second {
		t.Error("a late refusal of the old signature made another one")
	}
	if got := mustSign(t, replace(second)); got != second {
		t.Error("signed twice within a minute because of refusals")
	}
	now = now.Add(resignPause)
	if got := mustSign(t, replace(second)); got == second {
		t.Error("no new signature a minute after the last")
	}
}

func TestSigner_concurrent(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := newTestSigner(&start)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			sig, err := s.current()
			if err != nil {
				t.Error(err)
			}
			if _, err := s.replace(sig); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
