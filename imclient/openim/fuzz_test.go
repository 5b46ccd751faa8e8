package openim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
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

// fuzzToken is the admin token of the fuzz targets, in the form of a real one.
const fuzzToken = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJVc2VySUQiOiJpbUFkbWluIn0.c2lnbmVkLWJ5LW5vYm9keQ"

// backend answers logins with a body of their own, and all other calls with given
// bodies in turn, the last one again and again. In them $TOKEN stands for the
// token of the call, and $SECRET for the secret: what an answer may repeat and no
// error may.
type backend struct {
	login  []byte
	status int
	bodies [][]byte

	list []string // where in an answer's data the users are

	calls, logins int
	asked         [][]string // the ids of each call
	said          [][]byte   // the bodies as they were sent
	tokens        []string   // as they came
}

func (b *backend) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := b.status, b.login
	if strings.HasPrefix(r.URL.Path, "/auth/") {
		if b.logins++; b.calls > 0 {
			status = http.StatusOK
		}
	} else {
		var request struct {
			UserIDs      []string `json:"userIDs"`
			CheckUserIDs []string `json:"checkUserIDs"`
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			panic(err)
		}
		b.asked = append(b.asked, append(request.UserIDs, request.CheckUserIDs...))
		body = b.bodies[min(b.calls, len(b.bodies)-1)]
		b.calls++
		b.tokens = append(b.tokens, r.Header.Get("token"))
	}
	body = bytes.ReplaceAll(bytes.ReplaceAll(body, []byte("$TOKEN"), []byte(fuzzToken)), []byte("$SECRET"), []byte(testSecret))
	b.said = append(b.said, body)
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

// switched is a transport that each case of a fuzz target replaces.
type switched struct{ http.RoundTripper }

func newFuzzClient(tb testing.TB, transport http.RoundTripper) *Client {
	tb.Helper()
	c, err := New(Config{BaseURL: "http://api.example", AdminUserID: testAdmin, Secret: testSecret, HTTPConfig: imclient.HTTPConfig{Transport: transport}, Log: zerolog.Nop()})
	if err != nil {
		tb.Fatal(err)
	}
	return c
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

// maySend is what an id has to be so that an answer is about that user: not
// empty, text that JSON and Postgres keep as it is, and no longer than ours.
func maySend(id string) bool {
	return id != "" && len(id) <= 256 && utf8.ValidString(id) && !strings.Contains(id, "\x00")
}

// wordsIn collects the strings and numbers of a JSON text.
func wordsIn(body []byte) map[string]bool {
	words := map[string]bool{}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		switch word := token.(type) {
		case string:
			words[word] = true
		case json.Number:
			words[word.String()] = true
		}
		if err != nil {
			return words
		}
	}
}

// isSuccess reports whether a body is whole and its code is 0. The users' part of
// it may be anything.
func isSuccess(body []byte) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || string(fields["errCode"]) != "0" {
		return false
	}
	twice, big := shapeOf(body)
	return !twice && !big
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

// namesUser reports whether an answer says anything about anybody, where its list
// of users is to be.
func namesUser(body []byte, list []string) bool {
	var at any
	if json.Unmarshal(body, &at) != nil {
		return false
	}
	for _, name := range append([]string{"data"}, list...) {
		at = member(at, name)
	}
	users, _ := at.([]any)
	return slices.ContainsFunc(users, func(user any) bool {
		id, _ := member(user, "userID").(string)
		return id != ""
	})
}

// member is a value of an object.
func member(object any, name string) any {
	fields, _ := object.(map[string]any)
	return fields[name]
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
		if !maySend(id) || !slices.Contains(ids, id) {
			t.Errorf("%q was sent", id)
		}
	}
	if err != nil {
		if answer.Observed != nil || answer.Rejected != nil {
			t.Errorf("with an error came %+v", answer)
		}
		checkError(t, err)
		e, _ := errors.AsType[*imclient.Error](err)
		last := b.said[len(b.said)-1]
		noUser := strings.Contains(err.Error(), "of the wrong type, and no user") && !namesUser(last, b.list)
		if e.Code == "" && b.status == http.StatusOK && isSuccess(last) && !noUser {
			t.Errorf("a whole answer with code 0 is an error: %v", err)
		}
		return
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
		for word := range wordsIn(body) {
			spoken[word] = true
		}
	}
	ended := map[string]int{}
	for _, o := range answer.Observed {
		ended[o.UserID]++
		if !spoken[o.UserID] || !slices.ContainsFunc(words(o.Value), func(word string) bool { return spoken[word] }) {
			t.Errorf("%+v was observed, but the answers do not say it", o)
		}
	}
	for _, r := range answer.Rejected {
		ended[r.UserID]++
		checkWords(t, r.Text)
		if r.Code == "" || len(r.Code) > 20 || (r.Code == imclient.CodeInvalidID) == maySend(r.UserID) {
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

// checkError checks an error of a client.
func checkError(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*imclient.Error](err)
	if !ok || e.Class == imclient.ClassUnauthorised || e.Class == imclient.ClassPerUser || e.Class > imclient.ClassPerUser {
		t.Fatalf("the error has no class for a batch: %#v", err)
	}
	checkWords(t, err.Error())
	checkWords(t, fmt.Sprintf("%+v", *e))
	if n, err := strconv.Atoi(e.Code); e.Code != "" && (err != nil || n == 0) {
		t.Errorf("the code is %q", e.Code)
	}
}

// checkWords fails for a text that is long or in several lines, or repeats what an
// answer must not tell.
func checkWords(t *testing.T, text string) {
	t.Helper()
	const longest = 1500
	if len(text) > longest || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("%d bytes, or several lines: %q", len(text), text)
	}
	if strings.Contains(text, testSecret) || strings.Contains(text, fuzzToken) {
		t.Errorf("the secret or the token is in %q", text)
	}
}

// captured returns the answers of real servers.
func captured(f *testing.F) (bodies []string) {
	f.Helper()
	files, err := filepath.Glob("testdata/*/*.json")
	if err != nil || len(files) < 50 {
		f.Fatalf("%d captured answers, %v", len(files), err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		bodies = append(bodies, strings.ReplaceAll(string(body), "SCRUBBED.JWT", "$TOKEN"))
	}
	return bodies
}

// fuzzAnswers runs a target that asks one API; each case has the ids, one a line,
// an HTTP status and two answers. list leads from an answer's data to its users.
func fuzzAnswers[V comparable](f *testing.F, list []string, ask func(c *Client, ids []string) (imclient.Answer[V], error), words func(V) []string) {
	const whole = `{"errCode":0,"errMsg":"","errDlt":"","data":`
	seeds := append(captured(f),
		whole+`[{"userID":"u1","status":"online","detailPlatformStatus":[{"platform":"IOS","status":"online"},{"platform":"Web","status":"offline"}]},{"userID":"u2","status":"offline"}]}`,
		whole+`[{"userID":"u1","status":1,"detailPlatformStatus":[{"platformID":"11","isBackground":"no","token":"$TOKEN"},{"platformID":12}]},{"userID":"z","status":1}]}`,
		whole+`{"statusList":[{"userID":"u2","status":1,"platformIDs":[5,"1",null,{}]},{"userID":"u1","status":2,"platformIDs":"none"}]}}`,
		whole+`{"results":[{"userID":"u1","accountStatus":"registered"},{"userID":"u2","accountStatus":"$SECRET $TOKEN"}]}}`,
		whole+`[{"userID":"u1","status":"$SECRET"},{"userID":"u1","status":1},{"userID":"u2"}]}`,
		whole+`[{"userID":"u1","status":1}],"data":[{"userID":"u2"}]}`,
		whole+`[{"userID":"u1","userID":"u2","status":1}]}`,
		whole+`[{"userID":"u1","status":1,"detailPlatformStatus":[{"platformID":1,"token":"$TOKEN","token":"x"}]}]}`,
		whole+`[{"userID":"u1","status":1}],"Data":[{"userID":"u2"}]}`,
		whole+`{"statusList":[{"userID":"u1","status":1}],"statusList":[{"userID":"u2"}]}}`,
		whole+`{"results":[{"userID":"u1","accountStatus":1}],"results":[{"userID":"u2"}]}}`,
		whole+`{}}`, whole+`7}`, whole+`[{"userID":"u1","sta`,
		`{"errCode":"0","data":[{"userID":"u1","status":1.0}]}`, `{"errCode":1501,"errMsg":"TokenExpiredError","errDlt":"token=$TOKEN secret $SECRET"}`,
		`{"errCode":1004,"errMsg":"RecordNotFoundError"}`, `{"errCode":4711}`, `{"errCode":2,"errMsg":"ArgsError"}`, `null`, ``, `[]`, `<html>502 $TOKEN`)
	for _, body := range seeds {
		f.Add("u1\nu2\nghost", uint16(200), []byte(body), []byte(whole+`[{"userID":"u2","status":1,"detailPlatformStatus":null}]}`))
		f.Add("u1", uint16(500), []byte(body), []byte{})
	}
	f.Add("früh\n\na\x00b\n"+strings.Repeat("x", 257)+"\n\xff\n<&\u2028>", uint16(200), []byte(whole+`[{"userID":"<&\u2028>","status":0}]}`), []byte("{}"))
	// One client for all cases: to make one costs more than a case.
	transport := &switched{}
	c := newFuzzClient(f, transport)
	// The tokens are as old as those that are replaced without a pause.
	login := c.exchange.Credentials.Make
	long := func(ctx context.Context) (imclient.Credential, error) {
		admin, err := login(ctx)
		admin.IssuedAt = admin.IssuedAt.Add(-time.Hour)
		return admin, err
	}
	f.Fuzz(func(t *testing.T, lines string, status uint16, first, second []byte) {
		b := &backend{login: []byte(`{"errCode":0,"data":{"token":"$TOKEN","expireTimeSeconds":7776000}}`), status: 200, bodies: [][]byte{first, second}, list: list}
		transport.RoundTripper = b
		c.exchange.Credentials = &imclient.Credentials{Make: long, Now: c.now} // as if it were new
		admin, err := c.exchange.Credentials.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.exchange.Credentials.Settle(admin, imclient.Accepted)
		b.said, b.status = nil, int(status)
		ids := idsOf(lines)
		answer, err := ask(c, ids)
		checkAnswer(t, b, ids, answer, err, words)
	})
}

// presenceWords are how an answer may call a state.
func presenceWords(p imclient.Presence) []string {
	if p.State == imclient.StateOnline {
		return []string{"1", "online"}
	}
	return []string{"0", p.State.String()}
}

// FuzzQueryPresence looks for answers that break the decoder or its promises.
func FuzzQueryPresence(f *testing.F) {
	fuzzAnswers(f, nil, func(c *Client, ids []string) (imclient.Answer[imclient.Presence], error) {
		return c.QueryPresence(context.Background(), ids)
	}, presenceWords)
}

// FuzzQueryStatus is FuzzQueryPresence for get_users_status.
func FuzzQueryStatus(f *testing.F) {
	fuzzAnswers(f, []string{"statusList"}, func(c *Client, ids []string) (imclient.Answer[imclient.Presence], error) {
		return c.QueryStatus(context.Background(), ids)
	}, presenceWords)
}

// FuzzCheckAccounts is FuzzQueryPresence for account_check.
func FuzzCheckAccounts(f *testing.F) {
	fuzzAnswers(f, []string{"results"}, func(c *Client, ids []string) (imclient.Answer[imclient.AccountStatus], error) {
		return c.CheckAccounts(context.Background(), ids)
	}, func(s imclient.AccountStatus) []string {
		return map[imclient.AccountStatus][]string{
			imclient.StatusImported: {"1", "registered"}, imclient.StatusNotImported: {"0", "unregistered"},
		}[s]
	})
}

// FuzzLogin looks for answers to a login that give a token that cannot be used, or
// one with an odd lifetime, or tell it in an error.
func FuzzLogin(f *testing.F) {
	for _, body := range append(captured(f),
		`{"errCode":0,"data":{"token":"a\nb","expireTimeSeconds":60}}`,
		`{"errCode":0,"data":{"token":"$TOKEN","token":"another","expireTimeSeconds":60}}`,
		`{"errCode":1002,"errCode":0,"data":{"token":"$TOKEN","expireTimeSeconds":60}}`,
		`{"errCode":0,"data":{"token":"$TOKEN","expireTimeSeconds":9223372036854775807}}`,
		`{"errCode":0,"data":{"token":"$TOKEN","expireTimeSeconds":-1}}`,
		`{"errCode":0,"data":{"token":"$TOKEN","expireTimeSeconds":1e99}}`,
		`{"errCode":0,"data":{"token":["$TOKEN"]}}`, `{"errCode":0,"data":"$TOKEN"}`, `{"errCode":0,"errMsg":"$TOKEN"`,
		`{"errCode":1002,"errMsg":"secret $SECRET is wrong, not $TOKEN"}`, `404 page not found`,
	) {
		f.Add(uint16(200), []byte(body))
		f.Add(uint16(404), []byte(body))
		f.Add(uint16(503), []byte(body))
	}
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		at := newClock()
		b := &backend{login: body, status: int(status), bodies: [][]byte{[]byte(`{"errCode":0,"data":[]}`)}}
		c := newFuzzClient(t, b)
		c.exchange.Credentials.Now, c.now = at.now, at.now
		got, err := c.exchange.Credentials.Get(t.Context())
		if b.logins < 1 || b.logins > len(loginPaths) {
			t.Errorf("%d logins", b.logins)
		}
		if err != nil {
			checkError(t, err)
			return
		}
		if said := b.said[len(b.said)-1]; !isSuccess(said) && !bytes.Contains(said, []byte("0")) || !wordsIn(said)[got.Text] {
			t.Errorf("the token %q is not in %q", got.Text, said)
		}
		if got.Text == "" || strings.ContainsFunc(got.Text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("the token %q fits into no header", got.Text)
		}
		if got.RenewAt.IsZero() != got.ExpireAt.IsZero() || got.RenewAt.After(got.ExpireAt) || !got.RenewAt.IsZero() && got.RenewAt.Before(got.IssuedAt) {
			t.Errorf("issued at %s, to be renewed at %s, over at %s", got.IssuedAt, got.RenewAt, got.ExpireAt)
		}
	})
}

// checkPlatform checks the platform of a device. ours has the platforms with another name
// than the server's constants.
func checkPlatform(t *testing.T, d device, constants map[int]string, ours map[int]imclient.Platform) {
	t.Helper()
	name := d.Platform
	p, ok := platformOf(d)
	want, lower := 0, strings.ToLower(name) // "ios" of "İOS" too, which no server sends
	for number, constant := range constants {
		if d.PlatformID == strconv.Itoa(number) || d.PlatformID == "" && lower == strings.ToLower(constant) {
			want = number
		}
	}
	if ok != (want > 0) || ok != (p != imclient.PlatformUnknown) {
		t.Fatalf("%q %q is %s (%t), want the platform %d", d.PlatformID, name, p, ok, want)
	}
	if wantPlatform, differs := ours[want]; ok && (differs && p != wantPlatform || !differs && p.String() != strings.ToLower(constants[want])) {
		t.Errorf("%q %q is %s", d.PlatformID, name, p)
	}
}

// FuzzPlatformOf compares the mapper with a table of the server's constants.
func FuzzPlatformOf(f *testing.F) {
	constants := map[int]string{1: "IOS", 2: "Android", 3: "Windows", 4: "OSX", 5: "Web", 6: "MiniWeb", 7: "Linux", 8: "APad", 9: "IPad", 10: "Admin", 11: "HarmonyOS"}
	ours := map[int]imclient.Platform{4: imclient.PlatformMacOS, 6: imclient.PlatformMiniWeb, 8: imclient.PlatformAndroidPad, 11: imclient.PlatformHarmony}
	for id, name := range constants {
		f.Add(strconv.Itoa(id), name, "online", false)
		f.Add(`"`+strconv.Itoa(id)+`"`, "", "", true)
		f.Add("null", strings.ToLower(name), "offline", true)
	}
	f.Add("1.0", "iOS", "0", false)
	f.Add("", "İOS", "0", false)
	f.Add("-1", "", "1", true)
	f.Add("[1]", "", "", true)
	f.Fuzz(func(t *testing.T, id, name, status string, background bool) {
		d := device{Platform: name, Status: status, Background: background}
		if json.Valid([]byte(id)) {
			decoder := imclient.NewDecoder(strings.NewReader(id), 1<<20)
			d.PlatformID = decoder.Scalar()
			decoder.Free()
		}
		checkPlatform(t, d, constants, ours)
		p, ok := platformOf(d)
		var u presenceUser
		u.add(d)
		platforms, unknown := u.Platforms, u.Unknown
		mode := imclient.ModeOnline
		if background {
			mode = imclient.ModeBackground
		}
		gone := status == "offline" || status == "0"
		if gone && (platforms != imclient.Platforms{} || unknown != 0) || !gone && (platforms[p] != mode || (unknown == 1) == ok) {
			t.Errorf("a device %q %q in state %q is %s, %d unknown", d.PlatformID, name, status, platforms, unknown)
		}
	})
}

// FuzzUserID compares the check of ids with what an id has to be, and looks for
// ids that change on their way to the server.
func FuzzUserID(f *testing.F) {
	for _, id := range []string{"", "a", "a\x00b", "früh", "\xff", "\xed\xa0\x80", "<&>\u2028", strings.Repeat("x", 256), strings.Repeat("ö", 129)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		fault := CheckUserID(id)
		if (fault == "") != maySend(id) || len(fault) > 100 {
			t.Errorf("%q: %q", id, fault)
		}
		sent, err := json.Marshal(presenceRequest{UserIDs: []string{id}})
		var arrived presenceRequest
		if err == nil {
			err = json.Unmarshal(sent, &arrived)
		}
		if fault == "" && (err != nil || arrived.UserIDs[0] != id) {
			t.Errorf("%q arrives as %+v: %v", id, arrived, err)
		}
	})
}

// FuzzNewToken looks for lifetimes that overflow.
func FuzzNewToken(f *testing.F) {
	for _, lifetime := range []int64{0, -1, 1, 7776000, 1 << 33, 1<<63 - 1, -1 << 63} {
		f.Add(lifetime)
	}
	f.Fuzz(func(t *testing.T, lifetime int64) {
		at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
		got := newToken("t", lifetime, at)
		want := time.Duration(0)
		if lifetime > 0 {
			want = time.Duration(min(lifetime, 100*365*24*3600)) * time.Second
		}
		if lifetime <= 0 && (!got.RenewAt.IsZero() || !got.ExpireAt.IsZero()) ||
			lifetime > 0 && (got.ExpireAt.Sub(at) != want || got.RenewAt.Before(at) || !got.RenewAt.Before(got.ExpireAt)) {
			t.Errorf("a lifetime of %d s makes %+v", lifetime, got)
		}
	})
}
