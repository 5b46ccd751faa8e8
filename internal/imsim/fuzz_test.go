package imsim

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// fields are what a UserSig says, but for the signature itself.
func (sig userSig) fields() []any {
	return []any{*sig.Identifier, *sig.SDKAppID, *sig.Expire, *sig.Time}
}

// FuzzParseUserSig looks for texts that are no UserSig and are taken for one.
func FuzzParseUserSig(f *testing.F) {
	for _, v := range sigVectors {
		f.Add(v.sig)
		f.Add(v.sig[:len(v.sig)/2])
	}
	f.Add("")
	f.Add("eJw_")
	f.Add(sign("", 0, "", -1<<63, 1<<63-1))
	f.Add(sign(vectorKey, 1, strings.Repeat("x", maxSig), 0, 0))
	f.Fuzz(func(t *testing.T, s string) {
		sig, err := parseUserSig(s)
		if err != nil {
			return
		}
		if sig.Identifier == nil || sig.SDKAppID == nil || sig.Time == nil || sig.Expire == nil || sig.Sig == "" || len(*sig.Identifier) > maxSig {
			t.Fatalf("no error, but a field is missing: %+v", sig)
		}
		// No signature was made with this key.
		if sig.signedBy("a key that is used nowhere else") {
			t.Errorf("%+v is signed", sig.fields())
		}
		again, err := parseUserSig(sign(vectorKey, *sig.SDKAppID, *sig.Identifier, *sig.Time, *sig.Expire))
		if err != nil || !again.signedBy(vectorKey) {
			t.Fatalf("signed anew it is refused: %v", err)
		}
		if diff := cmp.Diff(sig.fields(), again.fields()); diff != "" {
			t.Errorf("signed anew (-was +is):\n%s", diff)
		}
	})
}

// FuzzForgedUserSig signs anything, and then changes bytes of it.
func FuzzForgedUserSig(f *testing.F) {
	f.Add(vectorKey, uint64(testApp), "administrator", int64(1700000000), int64(86400), uint16(30), byte(1), "x")
	f.Add("", uint64(1<<63), "a\nTLS.sdkappid:2", int64(-1), int64(1<<40), uint16(0), byte(0x20), "")
	f.Add("k", uint64(0), "ä\u2028\"<", int64(0), int64(0), uint16(65535), byte(3), "k")
	f.Fuzz(func(t *testing.T, key string, app uint64, identifier string, at, expire int64, place uint16, change byte, otherKey string) {
		if !utf8.ValidString(identifier) {
			return // JSON cannot hold it
		}
		text := sign(key, app, identifier, at, expire)
		sig, err := parseUserSig(text)
		if err != nil {
			if len(identifier) < maxSig/8 {
				t.Errorf("a signature is refused: %v", err)
			}
			return
		}
		want := []any{identifier, app, expire, at}
		if diff := cmp.Diff(want, sig.fields()); diff != "" || !sig.signedBy(key) {
			t.Errorf("signed by the key: %t; fields (-want +got):\n%s", sig.signedBy(key), diff)
		}
		// HMAC fills a short key up with zeros.
		if strings.TrimRight(otherKey, "\x00") != strings.TrimRight(key, "\x00") && len(key) <= 64 && len(otherKey) <= 64 && sig.signedBy(otherKey) {
			t.Errorf("signed by %q, and by %q", key, otherKey)
		}
		const far = 1 << 61
		if at > -far && at < far && expire > -far && expire < far && (sig.expired(time.Unix(at+expire, 0)) || !sig.expired(time.Unix(at+expire+1, 0))) {
			t.Errorf("does not expire right after %d+%d", at, expire)
		}
		forged := []byte(text)
		forged[int(place)%len(forged)] ^= change
		if sig, err := parseUserSig(string(forged)); err == nil && sig.signedBy(key) {
			if diff := cmp.Diff(want, sig.fields()); diff != "" {
				t.Errorf("a changed signature is taken (-signed +taken):\n%s", diff)
			}
		}
	})
}

// FuzzToken looks for tokens that were not issued and are accepted, or are read
// otherwise than they were issued.
func FuzzToken(f *testing.F) {
	f.Add("imAdmin", int64(3600), uint16(3), byte(1), "eyJhbGciOiJub25lIn0.eyJVc2VySUQiOiJpbUFkbWluIn0.")
	f.Add("", int64(-1), uint16(200), byte(0), "..")
	f.Add("\"\\", int64(1<<33), uint16(1), byte(4), "")
	f.Fuzz(func(t *testing.T, userID string, seconds int64, place uint16, change byte, stranger string) {
		if !utf8.ValidString(userID) {
			return
		}
		now := newClock().now()
		tokens := newTokens(OpenIM{AdminUserID: "imAdmin", Secret: testSecret})
		seconds %= 1 << 33
		text := tokens.issue(userID, adminPlatform, time.Duration(seconds)*time.Second, now)
		claims, refused := tokens.check(text, now)
		if (refused == nil) != (seconds >= 0) || claims.UserID != userID || claims.Expires != now.Unix()+seconds {
			t.Errorf("a token for %q and %d s is %+v: %v", userID, seconds, claims, refused)
		}
		if _, refused := tokens.check(stranger, now); refused == nil && stranger != text {
			t.Errorf("%q is taken", stranger)
		}
		forged := []byte(text)
		forged[int(place)%len(forged)] ^= change
		if got, refused := tokens.check(string(forged), now); refused == nil && got != claims {
			t.Errorf("a changed token is taken as %+v", got)
		}
	})
}

// FuzzServe looks for calls that break the simulator, or that it answers with
// something else than a code.
func FuzzServe(f *testing.F) {
	paths := []string{PathQueryState, PathQueryOnlineStatus, PathTencentAccounts, PathAdminToken, PathParseToken, PathOpenIMPresence, PathOpenIMUsersStatus, PathOpenIMAccounts}
	for n := range paths {
		for _, body := range []string{
			`{"To_Account":["user_1","user_2"],"IsNeedDetail":1}`, `{"CheckItem":[{"UserID":"user_1"},{}]}`, `{"userIDs":["user_1",""],"userID":"imAdmin"}`,
			`{"checkUserIDs":["user_1","user_1"]}`, `{"secret":"` + testSecret + `","userID":"imAdmin","token":"x"}`, `{"To_Account":"user_1"}`, `[]`, `null`, ``, `{"userIDs":[null]}`,
		} {
			f.Add(uint8(n), true, "", []byte(body))
			f.Add(uint8(n), false, "usersig=eJw_&identifier=administrator&sdkappid=1400000000&random=1&contenttype=json", []byte(body))
		}
	}
	s := New(Config{
		Tencent: &Tencent{SDKAppID: testApp, Admins: []string{testAdmin}, SecretKey: testKey, PresenceRate: -1, AccountsRate: -1},
		OpenIM:  &OpenIM{AdminUserID: "imAdmin", Secret: testSecret},
	})
	signed := url.Values{
		"sdkappid": {fmt.Sprint(testApp)}, "identifier": {testAdmin}, "random": {"1"}, "contenttype": {"json"},
		"usersig": {sign(testKey, testApp, testAdmin, time.Now().Unix(), 864000)},
	}.Encode()
	token := s.IssueToken("imAdmin", 240*time.Hour)
	f.Fuzz(func(t *testing.T, path uint8, isSigned bool, query string, body []byte) {
		r := httptest.NewRequest("POST", paths[int(path)%len(paths)], strings.NewReader(string(body)))
		if r.URL.RawQuery = query; isSigned {
			r.URL.RawQuery = signed
			r.Header.Set("token", token)
		}
		r.Header.Set("operationID", "1")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		var answer struct {
			Tencent *int `json:"ErrorCode"`
			OpenIM  *int `json:"errCode"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Tencent == nil && answer.OpenIM == nil {
			t.Errorf("HTTP %d, %v: %q", w.Code, err, w.Body)
		}
	})
}
