package tencent

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"syncer/imclient"
)

// bodyTransport answers every request with a body.
type bodyTransport []byte

func (b bodyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(b)), Request: r}, nil
}

// FuzzQueryPresence looks for answers that break the decoder or its promise that
// every user asked about ends in one place.
func FuzzQueryPresence(f *testing.F) {
	for _, body := range []string{
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","Status":"Online","State":"Offline","Detail":[{"Platform":"Web","Status":"Online"}]}]}`,
		`{"ActionStatus":"FAIL","ErrorCode":70107,"ErrorList":[{"To_Account":"a","ErrorCode":70107},{"To_Account":"b","ErrorCode":"70169"}]}`,
		`{"ErrorCode":0,"QueryResult":{"To_Account":7},"ErrorList":[{}]}`,
		`{"ErrorCode":70003}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := New(Config{SDKAppID: 1, Identifier: "admin", SecretKey: testSecret, BaseURL: "http://x", Now: time.Now, Transport: bodyTransport(body)})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.QueryPresence(context.Background(), []string{"a", "b"})
		if err == nil && len(answer.Observed)+len(answer.Rejected) != 2 {
			t.Errorf("2 users became %+v", answer)
		}
		if err != nil && imclient.ClassOf(err) == imclient.ClassUnauthorised {
			t.Errorf("a refusal is not turned into a fatal error: %v", err)
		}
		for _, o := range answer.Observed {
			if o.Value.State == imclient.StateUnknown {
				t.Errorf("an unknown state was observed: %+v", o)
			}
		}
	})
}
