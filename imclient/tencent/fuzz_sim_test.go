package tencent

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/imsim"
)

// served answers calls by a handler, without a network.
type served struct{ http.Handler }

func (s served) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

// FuzzSignedCall lets the simulator verify calls of any app: it takes what is
// signed with its key, and nothing else.
func FuzzSignedCall(f *testing.F) {
	f.Add(uint32(testApp), testSecret, testAdmin, int64(1700000000), testSecret)
	f.Add(uint32(1), "k", "a&usersig=x\"\\ <~", int64(0), "K")
	f.Add(^uint32(0), "\x00", "%41+%2B#", int64(-1<<40), "")
	f.Fuzz(func(t *testing.T, app uint32, key, identifier string, at int64, theirKey string) {
		now := func() time.Time { return time.Unix(at%(1<<33), 0) }
		c, err := New(Config{SDKAppID: app, Identifier: identifier, SecretKey: key, BaseURL: "http://api.example", HTTPConfig: imclient.HTTPConfig{Now: now,
			Transport: served{imsim.New(imsim.Config{
				Tencent: &imsim.Tencent{SDKAppID: uint64(app), Admins: []string{identifier}, SecretKey: theirKey},
				Now:     now,
			})},
		}})
		if err != nil {
			if app != 0 && key != "" && isDocumentedID(identifier) {
				t.Errorf("no client for app %d, %q: %v", app, identifier, err)
			}
			return
		}
		// HMAC fills a short key up with zeros, and hashes one above 64 bytes.
		same := strings.TrimRight(key, "\x00") == strings.TrimRight(theirKey, "\x00") || max(len(key), len(theirKey)) > 64
		switch err := c.Ping(t.Context()); {
		case key == theirKey && err != nil:
			t.Errorf("a call of %q, signed with the right key, is refused: %v", identifier, err)
		case !same && imclient.ClassOf(err) != fatal:
			t.Errorf("a call of %q, signed with %q for %q, is taken: %v", identifier, key, theirKey, err)
		}
	})
}
