package tencent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"syncer/imclient"
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

// plainReply is what encoding/json makes of an answer.
type plainReply struct {
	ActionStatus string
	ErrorInfo    string
	ErrorCode    any
	QueryResult  []struct {
		Account       string `json:"To_Account"`
		State, Status string
		Detail        []struct{ Platform, Status string }
	}
	ErrorList []struct {
		Account string `json:"To_Account"`
		Code    any    `json:"ErrorCode"`
	}
}

func (p plainReply) reply() (r presenceReply) {
	r.status = status{p.ActionStatus, p.ErrorInfo, plainCode(p.ErrorCode)}
	for _, u := range p.QueryResult {
		result := presenceResult{Account: u.Account, State: u.State, Status: u.Status}
		for _, d := range u.Detail {
			result.add(device{d.Platform, d.Status})
		}
		r.Results = append(r.Results, result)
	}
	for _, f := range p.ErrorList {
		r.Failed = append(r.Failed, presenceFailure{f.Account, plainCode(f.Code)})
	}
	return r
}

func plainCode(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []any:
		return "["
	case map[string]any:
		return "{"
	default:
		return fmt.Sprint(v)
	}
}

// readPresence reads an answer into a reply that another answer was read into.
func readPresence(body []byte, r *presenceReply) (whole, wrongType bool) {
	d := imclient.NewDecoder(bytes.NewReader(body), 1<<20)
	defer d.Free()
	return d.Answer(r, 500), d.WrongType
}

// sameAsJSON checks that an answer is read as encoding/json reads it, unless that
// overlooks something.
func sameAsJSON(t *testing.T, body []byte) {
	t.Helper()
	var got presenceReply
	readPresence([]byte(`{"ErrorCode":7,"QueryResult":[{"To_Account":"x","State":"Online","Detail":[{"Platform":"Web","Status":"Online"}]},{"Status":"Offline"}],"ErrorList":[{"To_Account":"y"}]}`), &got)
	whole, wrongType := readPresence(body, &got)
	same := cmp.Options{cmp.AllowUnexported(presenceReply{}), cmpopts.EquateEmpty()}
	if !whole {
		if diff := cmp.Diff(presenceReply{}, got, same); diff != "" {
			t.Errorf("of %q, which is not whole, is kept (-want +got):\n%s", body, diff)
		}
		return
	}
	var plain plainReply
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	err := decoder.Decode(&plain)
	if err != nil && !wrongType {
		t.Fatalf("encoding/json refuses %q: %v", body, err)
	}
	if wrongType || !utf8.Valid(body) || otherCase(body) || len(body) > keptID && longWord(body) {
		return // encoding/json leaves such values out, changes them, or takes other names for ours
	}
	if diff := cmp.Diff(plain.reply(), got, same); diff != "" {
		t.Errorf("%q is read otherwise than by encoding/json (-want +got):\n%s", body, diff)
	}
}

// otherCase reports whether a name of ours is there in another case.
func otherCase(body []byte) bool {
	for name := range stringsIn(body) {
		for _, ours := range []string{"ActionStatus", "ErrorInfo", "ErrorCode", "QueryResult", "ErrorList", "To_Account", "State", "Status", "Detail", "Platform"} {
			if name != ours && strings.EqualFold(name, ours) {
				return true
			}
		}
	}
	return false
}

// longWord reports whether a string is there of which not all is kept.
func longWord(body []byte) bool {
	for word := range stringsIn(body) {
		if len(word) > keptID {
			return true
		}
	}
	return false
}

func TestReadPresence(t *testing.T) {
	for body, whole := range map[string]bool{
		string(answerOf500()):                                                             true,
		` { "ErrorCode" : 0 , "QueryResult" : [ ] } ` + "\n":                              true,
		`{"ErrorCode":70003,"ErrorInfo":"bad sig","ActionStatus":"FAIL"}`:                 true,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","Extra":{"x":[1,{}]}}],"New":1}`: true,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"ä","Status":"Odd"}]}`:               true,
		`{}`:                                    true,
		`{"errorcode":70003}`:                   true,
		`{"ErrorCode":"0"}`:                     true,
		`{"ErrorCode":0,"ErrorInfo":"a\u0062"}`: true,
		`{"ErrorCode":0,"QueryResult":null}`:    true,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":7}]}`:                 true,
		`{"ErrorCode":0,"QueryResult":[7]}`:                                true,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","Detail":null}]}`: true,
		`[]`: true,
		"{\"ErrorCode\":0,\"ErrorInfo\":\"\xff\"}": true,

		`{"ErrorCode":0,"ErrorCode":70003}`: false,
		`{"ErrorCode":0}{}`:                 false,
		`{"ErrorCode":0`:                    false,
		`{"ErrorCode":0,"QueryResult":[`:    false,
		``:                                  false,
		`<html>`:                            false,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","State":"Online"}],"QueryResult":[{"To_Account":"b"}]}`:               false,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","To_Account":"b","State":"Online"}]}`:                                 false,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","State":"Online","State":"Offline"}]}`:                                false,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","State":"Online","Detail":[{"Platform":"Web","Platform":"PC"}]}]}`:    false,
		`{"ErrorCode":0,"QueryResult":[],"ErrorList":[{"To_Account":"a","ErrorCode":70107}],"ErrorList":[{"To_Account":"b"}]}`: false,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","State":"Online","Extra":{"x":1,"x":2}}]}`:                            false,
		`{"ErrorCode":0,"QueryResult":[` + strings.Repeat(`{},`, 600) + `{}]}`:                                                 false,
		`{"ErrorCode":0,"ErrorList":[` + strings.Repeat(`{"To_Account":"a","ErrorCode":70107},`, 600) + `{}]}`:                 false,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"` + strings.Repeat("a", 100<<10) + `"}]}`:                                false,
		`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","State":"Online"}],"Query\u0052esult":[{"To_Account":"b"}]}`:          false,
	} {
		var r presenceReply
		if got, _ := readPresence([]byte(body), &r); got != whole {
			t.Errorf("%.60s: whole %t, want %t", body, got, whole)
		}
		if json.Valid([]byte(body)) {
			sameAsJSON(t, []byte(body))
		}
	}
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sameAsJSON(t, body)
	}
}

// TestReadPresence_devices: a user may have any number of devices, of which no list
// is kept.
func TestReadPresence_devices(t *testing.T) {
	const web = `{"Platform":"Web","Status":"Online"},`
	body := []byte(`{"ErrorCode":0,"QueryResult":[{"To_Account":"a","State":"Online","Detail":[` + strings.Repeat(web, 20_000) + `{}]}]}`)
	var r presenceReply
	if whole, _ := readPresence(body, &r); !whole || len(r.Results) != 1 || r.Results[0].Platforms[imclient.PlatformWeb] != imclient.ModeOnline {
		t.Errorf("read as %+v", r)
	}
}

// BenchmarkDecode reads answers about 500 users.
func BenchmarkDecode(b *testing.B) {
	body := answerOf500()
	perUser := func(b *testing.B) { b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/user") }
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		var r presenceReply
		for b.Loop() {
			if whole, _ := readPresence(body, &r); !whole {
				b.Fatal("not read")
			}
		}
		perUser(b)
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var p plainReply
			if err := json.Unmarshal(body, &p); err != nil {
				b.Fatal(err)
			}
		}
		perUser(b)
	})
}
