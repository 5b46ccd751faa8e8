package tencent

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// answerOf500 is an answer about 500 users of whom each third has devices.
func answerOf500() []byte {
	var b strings.Builder
	b.WriteString(`{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[`)
	for n := range 500 {
		if n > 0 {
			b.WriteByte(',')
		}
		if n%3 == 0 {
			fmt.Fprintf(&b, `{"To_Account":"u%08d","State":"Online","Status":"Online","Detail":[{"Platform":"iPhone","Status":"Online"},{"Platform":"Web","Status":"PushOnline"}]}`, n)
		} else {
			fmt.Fprintf(&b, `{"To_Account":"u%08d","State":"Offline","Status":"Offline"}`, n)
		}
	}
	b.WriteString(`],"ErrorList":[{"To_Account":"nobody","ErrorCode":70107}]}`)
	return []byte(b.String())
}

// What the quick way reads is what encoding/json reads.
func TestQuick(t *testing.T) {
	bodies := map[string]bool{
		string(answerOf500()):                                                             true,
		` { "ErrorCode" : 0 , "QueryResult" : [ ] } ` + "\n":                              true,
		`{"ErrorCode":70003,"ErrorInfo":"bad sig","ActionStatus":"FAIL"}`:                 true,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","Extra":{"x":[1,{}]}}],"New":1}`: true,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"ä","Status":"Odd"}]}`:               true,
		`{}`: true,
		// What is left to encoding/json.
		`{"ErrorCode":0,"ErrorCode":70003}`:                                false,
		`{"errorcode":70003}`:                                              false,
		`{"ErrorCode":"0"}`:                                                false,
		`{"ErrorCode":0,"ErrorInfo":"a\u0062"}`:                            false,
		`{"ErrorCode":0,"QueryResult":null}`:                               false,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":7}]}`:                 false,
		`{"ErrorCode":0,"QueryResult":[7]}`:                                false,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","Detail":null}]}`: false,
		`{"ErrorCode":0}{}`:                                                false,
		`{"ErrorCode":0`:                                                   false,
		`{"ErrorCode":0,"QueryResult":[`:                                   false,
		`[]`:                                                               false,
		``:                                                                 false,
		`<html>`:                                                           false,
		"{\"ErrorInfo\":\"\xff\"}":                                         false,
	}
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for body, quick := range bodies {
		var got presenceReply
		if got.quick([]byte(body)) != quick {
			t.Errorf("the quick way reads %.60s: %t, want %t", body, !quick, quick)
		}
		sameAsSlow(t, []byte(body))
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sameAsSlow(t, body)
	}
}

// sameAsSlow checks an answer that the quick way reads.
func sameAsSlow(t *testing.T, body []byte) {
	t.Helper()
	var got, want presenceReply
	if !got.quick([]byte(`{"ErrorCode":7,"QueryResult":[{"To_Account":"x","State":"Online","Detail":[{"Platform":"Web"}]},{"Status":"Offline"}],"ErrorList":[{"To_Account":"y"}]}`)) {
		t.Fatal("the answer before it is not read")
	}
	got.reuse()
	if !got.quick(body) {
		return
	}
	if err := json.Unmarshal(body, &want); err != nil {
		t.Errorf("the quick way reads what encoding/json refuses (%v): %q", err, body)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(presenceReply{}), cmpopts.IgnoreFields(presenceReply{}, "devices"), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%q is read otherwise than by encoding/json (-want +got):\n%s", body, diff)
	}
}

// BenchmarkDecode reads answers about 500 users.
func BenchmarkDecode(b *testing.B) {
	body := answerOf500()
	perUser := func(b *testing.B) { b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/user") }
	b.Run("quick", func(b *testing.B) {
		b.ReportAllocs()
		var r presenceReply
		for b.Loop() {
			r.reuse()
			if !r.quick(body) {
				b.Fatal("not read")
			}
		}
		perUser(b)
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r presenceReply
			if err := json.Unmarshal(body, &r); err != nil {
				b.Fatal(err)
			}
		}
		perUser(b)
	})
}
