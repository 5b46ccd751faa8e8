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
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testApp    = 1400000000
	testAdmin  = "administrator"
	testKey    = "a key for tests"
	testSecret = "a secret for tests"
)

// clock is a clock that moves only when it is set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// bench is a simulator behind a real HTTP server, and what a test needs to call it.
type bench struct {
	*Server
	t      testing.TB
	http   *httptest.Server
	clock  *clock
	random uint32
	token  string
}

func newBench(t testing.TB, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, clock: newClock()}
	c := Config{
		Tencent: &Tencent{SDKAppID: testApp, Admins: []string{testAdmin}, SecretKey: testKey},
		OpenIM:  &OpenIM{AdminUserID: "imAdmin", Secret: testSecret},
		Now:     b.clock.now,
		Record:  true,
	}
	if change != nil {
		change(&c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	b.Server = New(c)
	b.http = httptest.NewUnstartedServer(b.Server)
	b.http.Config.ConnState = b.ConnState
	b.http.Start()
	t.Cleanup(func() {
		b.ClearFaults() // lets go of what hangs
		b.http.Client().CloseIdleConnections()
		b.http.Close()
	})
	return b
}

// got is an answer.
type got struct {
	status int
	header http.Header
	body   string
}

func (b *bench) do(method, path string, header http.Header, body string) (got, error) {
	b.t.Helper()
	req, err := http.NewRequest(method, b.http.URL+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for name, values := range header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	client := *b.http.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return got{}, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return got{resp.StatusCode, resp.Header, string(content)}, err
}

func (b *bench) must(method, path string, header http.Header, body string) got {
	b.t.Helper()
	g, err := b.do(method, path, header, body)
	if err != nil {
		b.t.Fatal(err)
	}
	return g
}

// query is a valid query of a Tencent call.
func (b *bench) query() url.Values {
	b.random++
	return url.Values{
		"sdkappid":    {strconv.Itoa(testApp)},
		"identifier":  {testAdmin},
		"usersig":     {sign(testKey, testApp, testAdmin, b.clock.now().Unix(), 86400)},
		"random":      {strconv.FormatUint(uint64(b.random), 10)},
		"contenttype": {"json"},
	}
}

// tencent makes a valid call and returns the body.
func (b *bench) tencentCall(path, body string) string {
	b.t.Helper()
	g := b.must("POST", path+"?"+b.query().Encode(), nil, body)
	if g.status != http.StatusOK {
		b.t.Errorf("HTTP status %d, Tencent always answers 200", g.status)
	}
	b.valid(g.body)
	return g.body
}

func (b *bench) valid(body string) {
	b.t.Helper()
	if !json.Valid([]byte(body)) {
		b.t.Errorf("not valid JSON: %s", body)
	}
}

func (b *bench) headers(token string) http.Header {
	b.random++
	return http.Header{"Operationid": {fmt.Sprintf("op-%d", b.random)}, "Token": {token}}
}

// openIMCall makes a call with an admin's token and returns the body.
func (b *bench) openIMCall(path, body string) string {
	b.t.Helper()
	if b.token == "" {
		b.token = b.login()
	}
	g := b.must("POST", path, b.headers(b.token), body)
	b.valid(g.body)
	return g.body
}

func (b *bench) login() string {
	b.t.Helper()
	path, body := PathAdminToken, `{"secret":"`+testSecret+`","userID":"imAdmin"}`
	if b.openIM.config.Version == OpenIM380 {
		path, body = PathUserToken, `{"secret":"`+testSecret+`","platformID":10,"userID":"imAdmin"}`
	}
	var answer struct {
		Data struct{ Token string }
	}
	g := b.must("POST", path, b.headers(""), body)
	if err := json.Unmarshal([]byte(g.body), &answer); err != nil || answer.Data.Token == "" {
		b.t.Fatalf("login: %v in %s", err, g.body)
	}
	return answer.Data.Token
}

// sign makes a UserSig. It was written from the description of TLSSigAPIv2.
func sign(key string, app uint64, identifier string, at, expire int64) string {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "TLS.identifier:%s\nTLS.sdkappid:%d\nTLS.time:%d\nTLS.expire:%d\n", identifier, app, at, expire)
	content, _ := json.Marshal(map[string]any{
		"TLS.ver": "2.0", "TLS.identifier": identifier, "TLS.sdkappid": app,
		"TLS.expire": expire, "TLS.time": at, "TLS.sig": base64.StdEncoding.EncodeToString(mac.Sum(nil)),
	})
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	_, _ = z.Write(content)
	_ = z.Close()
	return strings.NewReplacer("+", "*", "/", "-", "=", "_").Replace(base64.StdEncoding.EncodeToString(packed.Bytes()))
}
