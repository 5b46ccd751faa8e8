package imsim

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// quiet is a ResponseWriter that throws the answer away.
type quiet struct{ header http.Header }

func (q quiet) Header() http.Header         { return q.header }
func (q quiet) Write(p []byte) (int, error) { return len(p), nil }
func (q quiet) WriteHeader(int)             {}

// BenchmarkAnswer measures whole answers, without the network.
func BenchmarkAnswer(b *testing.B) {
	daily := NewDaily(1, time.Now())
	query := "?" + url.Values{
		"sdkappid": {fmt.Sprint(testApp)}, "identifier": {testAdmin}, "random": {"1"}, "contenttype": {"json"},
		"usersig": {sign(testKey, testApp, testAdmin, time.Now().Unix(), 86400)},
	}.Encode()
	for _, bb := range []struct {
		name, path, body string
		users            int
	}{
		{"tencent presence", PathQueryOnlineStatus + query, `{"To_Account":[` + ids(500, `"user_%d"`) + `],"IsNeedDetail":1}`, 500},
		{"tencent accounts", PathTencentAccounts + query, `{"CheckItem":[` + ids(100, `{"UserID":"user_%d"}`) + `]}`, 100},
		{"openim presence", PathOpenIMPresence, `{"userIDs":[` + ids(500, `"user_%d"`) + `]}`, 500},
		{"openim presence zipped", PathOpenIMPresence, `{"userIDs":[` + ids(500, `"user_%d"`) + `]}`, 500},
	} {
		for _, record := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/record=%t", bb.name, record), func(b *testing.B) {
				s := New(Config{
					Tencent:    &Tencent{SDKAppID: testApp, Admins: []string{testAdmin}, SecretKey: testKey, PresenceRate: -1, AccountsRate: -1},
					OpenIM:     &OpenIM{AdminUserID: "imAdmin", Secret: testSecret},
					Population: daily, Record: record,
				})
				r := httptest.NewRequest("POST", bb.path, nil)
				r.Header.Set("operationID", "1")
				r.Header.Set("token", s.IssueToken("imAdmin", time.Hour))
				if strings.HasSuffix(bb.name, "zipped") {
					r.Header.Set("Accept-Encoding", "gzip")
				}
				b.ReportAllocs()
				for b.Loop() {
					r.Body = io.NopCloser(strings.NewReader(bb.body))
					s.ServeHTTP(quiet{http.Header{}}, r)
				}
				if failed := s.Stats().Total().Failed; failed > 0 {
					b.Fatalf("%d calls failed", failed)
				}
				b.ReportMetric(float64(bb.users*b.N)/b.Elapsed().Seconds(), "users/s")
			})
		}
	}
}

// BenchmarkPopulation measures one user's devices and import status.
func BenchmarkPopulation(b *testing.B) {
	users := userIDs(10000)
	at := time.Now()
	for name, p := range map[string]Population{"daily": NewDaily(1, at), "rounds": NewRounds(1, 0.05)} {
		b.Run(name, func(b *testing.B) {
			devices := make([]Device, 0, 8)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				id := users[n%len(users)]
				n++
				if p.Imported(id, at) {
					devices = p.AppendDevices(devices[:0], id, at)
				}
			}
		})
	}
}
