package imclient

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// looksOpaque matches what CleanText must not leave standing: 32 characters of a
// token or signature, or 16 that begin like one.
var looksOpaque = regexp.MustCompile(`[\w*+/%-]{32}|(?:^|[^\w*+/%-])(?:e[JA][\w*+/%-]{14}|eyJ[\w*+/%.-]{13})`)

// checkText fails for a text that is longer than CleanText makes it, has several
// lines or control characters, or looks as if it held a token.
func checkText(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) || len(text) > maxText+len("…") || looksOpaque.MatchString(text) {
		t.Errorf("not clean: %q", text)
	}
}

// FuzzCleanText looks for texts that come out long, in several lines, or with a
// secret in them.
func FuzzCleanText(f *testing.F) {
	f.Add("token=eyJhbGciOiJIUzI1NiJ9.eyJVc2VySUQ\nx", "")
	f.Add("\xff\x00…", "x")
	f.Add("secret made-\x00up-key is wrong", "made-up-key")
	f.Add("usersig=eJyrVgrxCdYrSy1SslIy0jNQ&made-up-key "+strings.Repeat("ö ", 200), "made-up-key")
	f.Fuzz(func(t *testing.T, s, secret string) {
		// Shorter ones, and such words, are in our own words too.
		if len(secret) < 8 || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) ||
			strings.ContainsAny(secret, "[]?") || secret == "redacted" {
			secret = ""
		}
		got := CleanText(s, secret)
		checkText(t, got)
		if secret != "" && strings.Contains(got, secret) {
			t.Errorf("CleanText(%q) holds the secret %q: %q", s, secret, got)
		}
		if again := CleanText(got, secret); again != got {
			t.Errorf("%q becomes %q when cleaned again", got, again)
		}
	})
}

// FuzzPlatforms looks for platforms that are not read as they were written.
func FuzzPlatforms(f *testing.F) {
	f.Add([]byte(`{"ios":"online","web":"push_online"}`), []byte{1, 3, 5, 1})
	f.Add([]byte(`{"ios":"online","ios":"background"}`), []byte{1, 1, 1, 3, 1, 2})
	f.Add([]byte(`{"toaster":"online"}`), []byte{200, 3, 0, 2})
	f.Add([]byte(`{"ios":null}`), []byte{})
	f.Add([]byte(`null`), []byte{11})
	f.Fuzz(func(t *testing.T, stored, devices []byte) {
		var named map[string]string
		wrong := json.Unmarshal(stored, &named)
		p, err := ParsePlatforms(stored)
		if err == nil {
			if wrong != nil {
				t.Fatalf("%q is read, but no list of platforms: %v", stored, wrong)
			}
			want := map[string]string{}
			for platform, mode := range p {
				if mode != ModeNone {
					want[Platform(platform).String()] = modeNames[mode]
				}
			}
			if diff := cmp.Diff(want, named); diff != "" && len(named) > 0 {
				t.Errorf("%q is read as (-got +stored):\n%s", stored, diff)
			}
		}
		p, most := Platforms{}, map[Platform]Mode{}
		for i := 0; i+1 < len(devices); i += 2 {
			platform, mode := Platform(devices[i]), Mode(devices[i+1]%4)
			p.Add(platform, mode)
			if platform < numPlatforms {
				most[platform] = max(most[platform], mode)
			}
		}
		for platform, mode := range p {
			if mode != most[Platform(platform)] {
				t.Errorf("%s is %d, but the most connected device there is %d", Platform(platform), mode, most[Platform(platform)])
			}
		}
		back, err := ParsePlatforms([]byte(p.String()))
		if err != nil || back != p || !json.Valid([]byte(p.String())) {
			t.Errorf("%s is read again as %s: %v", p, back, err)
		}
	})
}

// answering answers every request with one answer.
type answering struct {
	status int
	header http.Header
	body   []byte
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)), Request: r}, nil
}

// FuzzPost looks for answers whose status or headers break the plumbing, make it
// wait too long, or get into an error with what no error may hold.
func FuzzPost(f *testing.F) {
	const signature = "eJyrVgrxCdYrSy1SslIy0jNQ0gHzM1NS80oy0zLBwolQ" // in the form of a real one
	f.Add(uint16(200), "", "", "", []byte(`{"ErrorCode":0}`))
	f.Add(uint16(200), "", "", "", []byte(`{"ErrorCode":0,"ErrorCode":0}`))
	f.Add(uint16(429), "", " 30 ", "Sun, 22 Nov 2026 12:00:00 GMT", []byte("slow down"))
	f.Add(uint16(503), "", "Sun, 22 Nov 2026 12:01:30 GMT", "yesterday", []byte{})
	f.Add(uint16(503), "", "-18446743000", "", []byte{})
	f.Add(uint16(302), "https://elsewhere.example/sso?usersig="+signature, "", "", []byte{})
	f.Add(uint16(307), "https://"+strings.Repeat("long.", 1000)+"example/", "", "", []byte{})
	f.Add(uint16(301), "http://"+signature+"@h:%zz/\x7f", "99999999999999999999", "", []byte{})
	f.Fuzz(func(t *testing.T, status uint16, location, retry, date string, body []byte) {
		h := NewHTTP(HTTPConfig{
			Provider: ProviderTencent, Timeout: time.Minute, Now: func() time.Time { return noon },
			Transport: answering{int(status), http.Header{"Location": {location}, "Retry-After": {retry}, "Date": {date}}, body},
		})
		sent := 0
		reply, err := h.post(t.Context(), httpRequest{API: "test", URL: "http://api.example/v4?usersig=" + signature, Sent: &sent})
		if sent != 1 {
			t.Errorf("%d calls counted", sent)
		}
		if err == nil {
			if reply.Status != int(status) || reply.Bytes > int64(len(body)) || (reply.Fault == "") != isAnswer(body) {
				t.Errorf("status %d with %q is given as %+v", status, body, reply)
			}
			checkPause(t, retry, reply.RetryAfter)
			if err = h.statusError("test", reply); err == nil {
				if status != http.StatusOK {
					t.Errorf("HTTP %d is no error", status)
				}
				return
			}
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Class > ClassPerUser || e.Class == ClassUnauthorised {
			t.Fatalf("HTTP %d: %#v", status, err)
		}
		if text := fmt.Sprintf("%v %+v", err, e.Err); strings.Contains(text, signature) || len(text) > 4*maxText {
			t.Errorf("HTTP %d: %d bytes, or the signature: %.2000q", status, len(text), text)
		}
	})
}

// isAnswer reports whether a body is JSON that may be an answer.
func isAnswer(body []byte) bool { return json.Valid(body) && shapeOf(body) == shape{} }

// checkPause compares a pause with what the header asks for.
func checkPause(t *testing.T, header string, got time.Duration) {
	t.Helper()
	if got < 0 || got > maxRetryAfter {
		t.Errorf("Retry-After %q is a pause of %s", header, got)
	}
	header = strings.TrimSpace(header)
	want := time.Duration(0)
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		want = maxRetryAfter
		if seconds < int64(maxRetryAfter/time.Second) {
			want = time.Duration(max(seconds, 0)) * time.Second
		}
	} else if at, err := http.ParseTime(header); err == nil {
		want = min(max(at.Sub(noon), 0), maxRetryAfter)
	}
	if got != want {
		t.Errorf("Retry-After %q is a pause of %s, want %s", header, got, want)
	}
}

// FuzzReadCAs looks for files of certificates that break the reader, are taken
// though nothing in them is a certificate, or get into its errors.
func FuzzReadCAs(f *testing.F) {
	const canary = "CANARYCANARYCANARYCANARY"
	block := func(kind string, content []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
	}
	good := block("CERTIFICATE", fixedCertificate(f))
	key := []byte("-----BEGIN PRIVATE KEY-----\n" + canary + "\n-----END PRIVATE KEY-----\n")
	for _, data := range [][]byte{
		{}, good, key, append(slices.Clone(key), good...), good[:len(good)/2], block("CERTIFICATE", []byte(canary)),
		block("TRUSTED CERTIFICATE", nil), []byte("-----BEGIN CERTIFICATE-----\nProc-Type: 4\n\n" + canary + "\n-----END CERTIFICATE-----\n"),
	} {
		f.Add(data)
	}
	path := filepath.Join(f.TempDir(), "ca.pem")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		whole, wrong := x509.NewCertPool(), 0
		found := 0
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				continue
			}
			found++
			if c, err := x509.ParseCertificate(block.Bytes); err != nil {
				wrong++
			} else {
				whole.AddCert(c)
			}
		}
		got, err := ReadCAs(path)
		switch {
		case err != nil && (found == 0 || wrong > 0):
			if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the file's name is not in the error, or its content is: %v", err)
			}
		case err != nil:
			t.Errorf("%d good certificates are refused: %v", found, err)
		case found == 0 || wrong > 0 || !got.Equal(whole):
			t.Errorf("%d certificates, %d of them wrong, are taken", found, wrong)
		}
	})
}

// fixedCertificate is a certificate that is the same in each process.
func fixedCertificate(f *testing.F) []byte {
	f.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "ca.pem"))
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		f.Fatal("testdata/ca.pem holds no PEM")
	}
	return block.Bytes
}

// saySteps lets a backend say steps about ids, and notes what is observed first and settled.
// It returns how many steps are about other ids.
func saySteps(b *Batch[int], steps []byte, ids []string, said map[string]int, settled map[string]bool) (unasked int) {
	for i := 0; i+1 < len(steps); i += 2 {
		id := fmt.Sprintf("stranger %d", steps[i])
		if n := int(steps[i]); n < len(ids) {
			id = ids[n]
		} else {
			unasked++
		}
		switch steps[i+1] >> 4 % 3 {
		case 0:
			b.Observe(id, i)
			if !settled[id] {
				said[id] = i
			}
			settled[id] = true
		case 1:
			b.Reject(id, "7", "rejected")
			settled[id] = true
		case 2:
			b.Doubt(id, "8", "doubted")
		}
	}
	return unasked
}

// checkBatch checks that each of the distinct ids is in one place of the answer, in order.
func checkBatch(t *testing.T, distinct []string, said map[string]int, failure *Error, unasked int, answer Answer[int]) {
	t.Helper()
	ended := map[string]bool{}
	var order []string
	for _, o := range answer.Observed {
		if value, ok := said[o.UserID]; !ok || value != o.Value {
			t.Errorf("observed is %+v, said was %d (%t)", o, value, ok)
		}
		ended[o.UserID] = true
		order = append(order, o.UserID)
	}
	for _, r := range answer.Rejected {
		if _, ok := said[r.UserID]; ok || ended[r.UserID] || r.Code == "" && failure == nil {
			t.Errorf("rejected is %+v, who was observed", r)
		}
		ended[r.UserID] = true
	}
	if len(ended) != len(distinct) || len(answer.Observed)+len(answer.Rejected) != len(distinct) || answer.Unasked != unasked {
		t.Errorf("%q became %+v, with %d not asked for", distinct, answer, unasked)
	}
	if inOrder := slices.DeleteFunc(slices.Clone(distinct), func(id string) bool { return !slices.Contains(order, id) }); !slices.Equal(order, inOrder) {
		t.Errorf("observed in the order %q, want %q", order, inOrder)
	}
}

// FuzzBatch plays a backend that says anything in any order. Each step of what it
// says are two bytes: about whom, and what.
func FuzzBatch(f *testing.F) {
	f.Add("a b c", []byte("\x00\x00\x01\x10\x02\x20"), []byte("\x02\x00"), byte(0), byte(0))
	f.Add("a a b", []byte("\x07\x00\x01\x00\x01\x10"), []byte{}, byte(0), byte(2))
	f.Add("a", []byte{}, []byte{}, byte(6), byte(0))
	f.Add("b a", []byte("\x00\x00"), []byte{}, byte(0), byte(5))
	f.Fuzz(func(t *testing.T, words string, first, second []byte, firstFails, secondFails byte) {
		ids := strings.Fields(words)
		var distinct []string
		for _, id := range ids {
			if !slices.Contains(distinct, id) {
				distinct = append(distinct, id)
			}
		}
		b := newBatch[int](ids, nil)
		said := map[string]int{} // the first value observed of each
		settled := map[string]bool{}
		unasked, rounds := 0, 0
		var failure *Error
		answer, err := b.settle(t.Context(), func() time.Time { return noon }, func(_ context.Context, asked []string) error {
			left := slices.DeleteFunc(slices.Clone(distinct), func(id string) bool { return settled[id] })
			if !slices.Equal(asked, left) {
				t.Errorf("round %d asks about %q, want %q", rounds, asked, left)
			}
			steps, fails := first, firstFails
			if rounds++; rounds > 1 {
				steps, fails = second, secondFails
			}
			unasked += saySteps(b, steps, distinct, said, settled)
			if fails%8 > 0 {
				failure = &Error{Class: Class(fails%8 - 1), Code: strings.Repeat("9", int(fails>>7))}
				return failure
			}
			return nil
		})
		if rounds > 2 {
			t.Errorf("%d rounds", rounds)
		}
		if err != nil {
			want := Class(0)
			if failure != nil {
				if want = failure.Class; want == ClassPerUser {
					want = ClassBadBatch
				}
			}
			if failure == nil || ClassOf(err) != want || len(answer.Observed)+len(answer.Rejected) > 0 {
				t.Errorf("%v became %v, with %+v", failure, err, answer)
			}
			return
		}
		checkBatch(t, distinct, said, failure, unasked, answer)
	})
}
