package tencent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"syncer/imclient"
)

// backend answers a client with given bodies in turn, and the last one again and
// again. In them $SIG stands for the signature of the call, and $KEY for the key:
// what an answer may repeat and no error may.
type backend struct {
	status int
	bodies [][]byte

	sig   string
	calls int
	asked [][]string // the ids of each call
	said  [][]byte   // the bodies as they were sent
}

func (b *backend) RoundTrip(r *http.Request) (*http.Response, error) {
	var request struct {
		Accounts []string                  `json:"To_Account"`
		Check    []struct{ UserID string } `json:"CheckItem"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		panic(err)
	}
	for _, item := range request.Check {
		request.Accounts = append(request.Accounts, item.UserID)
	}
	b.asked = append(b.asked, request.Accounts)
	b.sig = r.URL.Query().Get("usersig")
	body := b.bodies[min(b.calls, len(b.bodies)-1)]
	b.calls++
	body = bytes.ReplaceAll(bytes.ReplaceAll(body, []byte("$SIG"), []byte(b.sig)), []byte("$KEY"), []byte(testSecret))
	b.said = append(b.said, body)
	return &http.Response{StatusCode: b.status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

// switched is a transport that each case of a fuzz target replaces.
type switched struct{ http.RoundTripper }

// fuzzClient makes a client for all cases: to make one costs more than a case.
func fuzzClient(f *testing.F) (*Client, *switched) {
	f.Helper()
	transport := &switched{}
	c, err := New(Config{
		SDKAppID: testApp, Identifier: testAdmin, SecretKey: testSecret, BaseURL: "http://api.example", Detail: true,
		HTTPConfig: imclient.HTTPConfig{Transport: transport}, Log: zerolog.Nop(),
	})
	if err != nil {
		f.Fatal(err)
	}
	return c, transport
}

// old makes signatures as old as those that are replaced without a pause.
func old(sign func(context.Context) (imclient.Credential, error)) func(context.Context) (imclient.Credential, error) {
	return func(ctx context.Context) (imclient.Credential, error) {
		sig, err := sign(ctx)
		sig.IssuedAt = sig.IssuedAt.Add(-time.Hour)
		return sig, err
	}
}

// idsOf takes the ids of a case apart, one a line.
func idsOf(lines string) []string {
	var ids []string
	for id := range strings.SplitSeq(lines, "\n") {
		if !slices.Contains(ids, id) && len(ids) < 20 {
			ids = append(ids, id)
		}
	}
	return ids
}

// isDocumentedID is the widest of the documents' rules for a UserID, which is
// that of error 7003: 1 to 32 bytes of printable ASCII.
func isDocumentedID(id string) bool {
	return id != "" && len(id) <= 32 && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' })
}

// stringsIn collects the strings of a JSON text, also of the beginning of one.
func stringsIn(body []byte) map[string]bool {
	words := map[string]bool{}
	for decoder := json.NewDecoder(bytes.NewReader(body)); ; {
		token, err := decoder.Token()
		if err != nil {
			return words
		}
		if s, ok := token.(string); ok {
			words[s] = true
		}
	}
}

// isSuccess reports whether a body is whole, its code is 0 and nothing in it
// speaks against that. The users' part of it may be anything.
func isSuccess(body []byte) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || string(fields["ErrorCode"]) != "0" {
		return false
	}
	if twice, big := shapeOf(body); twice || big {
		return false
	}
	says, ok := fields["ActionStatus"]
	return !ok || string(says) == `"OK"`
}

// shapeOf reports whether a JSON text has a member twice, or more of something than
// any answer has.
func shapeOf(body []byte) (twice, big bool) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	var walk func(depth int)
	walk = func(depth int) {
		token, _ := decoder.Token()
		names, isObject := map[string]bool{}, token == json.Delim('{')
		if !isObject && token != json.Delim('[') {
			return
		}
		elements := 0
		for ; decoder.More(); elements++ {
			if isObject {
				name, _ := decoder.Token()
				twice = twice || names[name.(string)]
				names[name.(string)] = true
			}
			walk(depth + 1)
		}
		_, _ = decoder.Token()
		big = big || depth > 15 || elements > 60
	}
	walk(1)
	return twice, big || len(body) > 50_000
}

// checkAnswer checks what any body must come to: each id in one place, observed
// only with words of the answer, asked only when it may be sent, and nothing of
// what a text must not contain.
func checkAnswer[V comparable](t *testing.T, b *backend, ids []string, answer imclient.Answer[V], err error, words func(V) []string) {
	t.Helper()
	if b.calls > 4 || answer.Calls != b.calls {
		t.Errorf("%d calls were made, %d are counted", b.calls, answer.Calls)
	}
	for _, id := range slices.Concat(b.asked...) {
		if !isDocumentedID(id) || !slices.Contains(ids, id) {
			t.Errorf("%q was sent", id)
		}
	}
	if err != nil {
		checkFailure(t, b, answer.Observed == nil && answer.Rejected == nil, err)
		return
	}
	if answer.AskedAt.IsZero() || answer.AnsweredAt.Before(answer.AskedAt) {
		t.Errorf("asked at %s, answered at %s", answer.AskedAt, answer.AnsweredAt)
	}
	checkUsers(t, b, ids, answer, words)
}

// checkUsers checks that each id is in one place of an answer, with words of the backend.
func checkUsers[V comparable](t *testing.T, b *backend, ids []string, answer imclient.Answer[V], words func(V) []string) {
	t.Helper()
	spoken := map[string]bool{}
	for _, body := range b.said {
		if twice, _ := shapeOf(body); twice {
			t.Errorf("an answer with a member twice was believed: %q", body)
		}
		for word := range stringsIn(body) {
			spoken[word] = true
		}
	}
	ended := map[string]int{}
	for _, o := range answer.Observed {
		ended[o.UserID]++
		for _, word := range append(words(o.Value), o.UserID) {
			if !spoken[word] {
				t.Errorf("%+v was observed, but %q is not in the answers", o, word)
			}
		}
	}
	for _, r := range answer.Rejected {
		ended[r.UserID]++
		checkWords(t, b, r.Text)
		if r.Code == "" || len(r.Code) > 20 || (r.Code == imclient.CodeInvalidID) == isDocumentedID(r.UserID) {
			t.Errorf("%q is rejected with %+v", r.UserID, r)
		}
	}
	for _, id := range ids {
		if ended[id] != 1 {
			t.Errorf("%q ended %d times: %+v", id, ended[id], answer)
		}
	}
	if len(ended) != len(ids) {
		t.Errorf("%d users became %d: %+v", len(ids), len(ended), answer)
	}
}

// checkFailure checks the error of a whole batch.
func checkFailure(t *testing.T, b *backend, nothingElse bool, err error) {
	t.Helper()
	e, ok := errors.AsType[*imclient.Error](err)
	if !ok || e.Class == imclient.ClassUnauthorised || e.Class == imclient.ClassPerUser || e.Class > imclient.ClassPerUser {
		t.Fatalf("the error has no class for a batch: %#v", err)
	}
	if !nothingElse {
		t.Error("there are users in the answer, and an error")
	}
	checkWords(t, b, err.Error())
	checkWords(t, b, fmt.Sprintf("%+v", *e))
	if e.Code != "" {
		checkClass(t, e)
		return
	}
	if b.status == http.StatusOK && isSuccess(b.said[len(b.said)-1]) {
		t.Errorf("a whole answer with code 0 is an error: %v", err)
	}
}

// checkClass checks the class of an error with a code.
func checkClass(t *testing.T, e *imclient.Error) {
	t.Helper()
	n, err := strconv.Atoi(e.Code)
	m, known := codes[n]
	same := m.Class == e.Class || m.Class == unauthorised && (e.Class == fatal || e.Class == transient) || m.Class == perUser && e.Class == badBatch
	if err != nil || n == 0 || known && !same || !known && e.Class != transient {
		t.Errorf("code %q has class %s", e.Code, e.Class)
	}
}

// checkWords fails for a text that is long or in several lines, or repeats what an
// answer must not tell.
func checkWords(t *testing.T, b *backend, text string) {
	t.Helper()
	const longest = 1500
	if len(text) > longest || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("%d bytes, or several lines: %q", len(text), text)
	}
	if strings.Contains(text, testSecret) || b.sig != "" && strings.Contains(text, b.sig) {
		t.Errorf("the key or the signature is in %q", text)
	}
}

// addAnswers adds seeds for answers of both kinds.
func addAnswers(f *testing.F, add func(lines string, status uint16, first, second []byte)) {
	const whole = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,`
	for _, body := range []string{
		whole + `"QueryResult":[{"To_Account":"a","State":"Online","Detail":[{"Platform":"IPhone","Status":"PushOnline"},{"Platform":"Web","Status":"Online"}]},{"To_Account":"b","State":"Offline"}]}`,
		whole + `"QueryResult":[{"To_Account":"a","Status":"Online","State":"Offline","Detail":[{"Platform":"Toaster","Status":"Online"}]},{"To_Account":"z","Status":"$SIG"}],"ErrorList":[{"To_Account":"b","ErrorCode":70107}]}`,
		whole + `"ResultItem":[{"UserID":"a","ResultCode":0,"ResultInfo":"","AccountStatus":"Imported"},{"UserID":"b","ResultCode":70107,"ResultInfo":"no such account $KEY"}]}`,
		whole + `"ResultItem":[{"UserID":"a","ResultCode":0,"AccountStatus":"$KEY"},{"UserID":"b","ResultCode":"x","AccountStatus":"NotImported"}]}`,
		`{"ErrorCode":0,"QueryResult":{"To_Account":7},"ErrorList":[{"To_Account":"a","ErrorCode":""},{}]}`,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"@TLS#NOT_FOUND","State":"Online"},{"To_Account":"a","State":"Online","Detail":null}]}`,
		`{"ActionStatus":"FAIL","ErrorCode":70107,"ErrorList":[{"To_Account":"a","ErrorCode":70107},{"To_Account":"b","ErrorCode":"70169"}]}`,
		`{"ActionStatus":"FAIL","ErrorInfo":"refused: usersig=$SIG key $KEY","ErrorCode":70003}`,
		`{"ActionStatus":"FAIL","ErrorInfo":"Fail to Parse json data of body, Please check it","ErrorCode":90001}`,
		whole + `"QueryResult":[{"To_Account":"a","State":"Online"}],"QueryResult":[{"To_Account":"b"}]}`,
		whole + `"QueryResult":[{"To_Account":"a","To_Account":"b","State":"Online"}]}`,
		whole + `"ResultItem":[{"UserID":"a","ResultCode":0,"AccountStatus":"Imported"}],"ResultItem":[{"UserID":"b"}]}`,
		whole + `"QueryResult":[{"To_Account":"a","State":"Online"}],"queryresult":[{"To_Account":"b"}]}`,
		whole + `"QueryResult":[],"ErrorList":[{"To_Account":"a","ErrorCode":70107}],"ErrorList":[{"To_Account":"b"}]}`,
		`{"ErrorCode":70107,"ErrorList":[{"To_Account":"a","ErrorCode":70107}],"ErrorCode":0}`,
		`{"ErrorCode":70107}`, `{"ErrorCode":60007}`, `{"ErrorCode":4711}`, `{"ErrorCode":-0}`, `{"ErrorCode":1e3}`,
		whole + `"QueryResult":[{"To_Account":"a","Sta`, `<html>502 $SIG`, `null`, ``, `[]`, "{\"ErrorCode\":0,\"ErrorInfo\":\"\xff\"}",
	} {
		add("a\nb", 200, []byte(body), []byte(whole+`"QueryResult":[{"To_Account":"b","Status":"PushOnline"}]}`))
		add("a", 503, []byte(body), nil)
	}
	add("früh\n\na\ttab\n"+strings.Repeat("x", 33)+"\nAdmin & Co\n@TLS#NOT_FOUND", 200, []byte(whole+`"QueryResult":[{"To_Account":"Admin \u0026 Co","State":"Online"}]}`), []byte("{}"))
	f.Helper()
}

// FuzzQueryPresence looks for answers that break the decoder or its promises.
func FuzzQueryPresence(f *testing.F) {
	addAnswers(f, func(lines string, status uint16, first, second []byte) { f.Add(lines, status, first, second) })
	c, transport := fuzzClient(f)
	long := old(c.exchange.Credentials.Make)
	f.Fuzz(func(t *testing.T, lines string, status uint16, first, second []byte) {
		b := &backend{status: int(status), bodies: [][]byte{first, second}}
		transport.RoundTripper = b
		c.exchange.Credentials = &imclient.Credentials{Make: long, Now: time.Now} // as if it were new
		ids := idsOf(lines)
		answer, err := c.QueryPresence(context.Background(), ids)
		checkAnswer(t, b, ids, answer, err, func(p imclient.Presence) []string {
			return []string{map[imclient.State]string{
				imclient.StateOnline: "Online", imclient.StatePushOnline: "PushOnline", imclient.StateOffline: "Offline",
			}[p.State]}
		})
	})
}

// FuzzCheckAccounts is FuzzQueryPresence for the other API.
func FuzzCheckAccounts(f *testing.F) {
	addAnswers(f, func(lines string, status uint16, first, second []byte) { f.Add(lines, status, first, second) })
	c, transport := fuzzClient(f)
	long := old(c.exchange.Credentials.Make)
	f.Fuzz(func(t *testing.T, lines string, status uint16, first, second []byte) {
		b := &backend{status: int(status), bodies: [][]byte{first, second}}
		transport.RoundTripper = b
		c.exchange.Credentials = &imclient.Credentials{Make: long, Now: time.Now} // as if it were new
		ids := idsOf(lines)
		answer, err := c.CheckAccounts(context.Background(), ids)
		checkAnswer(t, b, ids, answer, err, func(s imclient.AccountStatus) []string {
			return []string{map[imclient.AccountStatus]string{
				imclient.StatusImported: "Imported", imclient.StatusNotImported: "NotImported",
			}[s]}
		})
	})
}

// FuzzReadPresence compares how an answer is read with encoding/json's way.
func FuzzReadPresence(f *testing.F) {
	addAnswers(f, func(_ string, _ uint16, first, _ []byte) { f.Add(first) })
	f.Add([]byte(`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","x":1}]}`))
	f.Fuzz(sameAsJSON)
}

// FuzzPlatformOf compares the mapper with a table of the documents' names.
func FuzzPlatformOf(f *testing.F) {
	documented := map[string]imclient.Platform{
		"iPhone": imclient.PlatformIOS, "Android": imclient.PlatformAndroid, "Web": imclient.PlatformWeb, "PC": imclient.PlatformWindows,
		"iPad": imclient.PlatformIPad, "Mac": imclient.PlatformMacOS,
	}
	for name := range documented {
		f.Add(name, "Online")
	}
	f.Add("IPhone", "PushOnline")
	f.Add("K\u212Aſ", "online") // letters whose lower case is ASCII
	f.Fuzz(func(t *testing.T, name, status string) {
		p, ok := platformOf(name)
		if ok != (p != imclient.PlatformUnknown) {
			t.Errorf("%q is %s (%t)", name, p, ok)
		}
		lower := strings.ToLower(name) // "iphone" of "İPhone" too, which no server sends
		for known, want := range documented {
			if lower == strings.ToLower(known) && p != want {
				t.Errorf("%q is %s, want %s", name, p, want)
			}
		}
		var u presenceResult
		u.add(device{Platform: name, Status: status})
		mode := map[string]imclient.Mode{"Online": imclient.ModeOnline, "PushOnline": imclient.ModePushOnline}[status]
		if u.Platforms[p] != mode || (u.Unknown == 1) != (mode != imclient.ModeNone && !ok) {
			t.Errorf("a device %q in state %q is %s, %d unknown", name, status, u.Platforms, u.Unknown)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// FuzzUserID compares the check of ids with the documents' rule.
func FuzzUserID(f *testing.F) {
	for _, id := range []string{"", "a", "user_1", "@TLS#NOT_FOUND", " ", "~", "\x7f", "\x1f", "früh", "\xff", strings.Repeat("x", 32), strings.Repeat("x", 33), strings.Repeat("ö", 16)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if fault := CheckUserID(id); (fault == "") != isDocumentedID(id) || len(fault) > 100 || !isASCII(fault) {
			t.Errorf("%q: %q", id, fault)
		}
	})
}

// FuzzSign looks for signatures that do not say what was signed.
func FuzzSign(f *testing.F) {
	f.Add(uint32(testApp), testSecret, testAdmin, int64(1700000000), int64(86400))
	f.Add(uint32(0), "", "ä\"\\<>&\u2028", int64(-1), int64(1<<40))
	f.Add(^uint32(0), strings.Repeat("k", 200), strings.Repeat("x", 32), int64(1)<<62, int64(0))
	f.Fuzz(func(t *testing.T, app uint32, key, identifier string, at, seconds int64) {
		ttl := time.Duration(seconds) * time.Second
		sig, err := sign(app, key, identifier, time.Unix(at, 0), ttl)
		if err != nil {
			t.Fatal(err)
		}
		want := userSig{Version: "2.0", Identifier: identifier, SDKAppID: app, Expire: int64(ttl / time.Second), Time: time.Unix(at, 0).Unix()}
		want.Sig = want.sum(key)
		got := decode(t, sig)
		if !utf8.ValidString(identifier) {
			got.Identifier = identifier // JSON cannot hold it, and validate refuses it
		}
		if got.Version != want.Version || got.Identifier != want.Identifier || got.SDKAppID != want.SDKAppID || got.Expire != want.Expire ||
			got.Time != want.Time || !bytes.Equal(got.Sig, want.Sig) {
			t.Errorf("signed is %+v, want %+v", got, want)
		}
		if strings.Trim(sig, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789*-_") != "" {
			t.Errorf("%q needs escaping in a URL", sig)
		}
	})
}
