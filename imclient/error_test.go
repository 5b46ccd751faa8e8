package imclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestCleanText(t *testing.T) {
	const (
		jwt = "eyJhbGciOiJIUzI1NiJ9.eyJVc2VySUQiOiJ1MSJ9.c2lnbmF0dXJl"
		sig = "eJyrVgrxCdYrSy1SslIy0jNQ0gHzM1NS80oy0zLBwolQweKU7MSCgswUJStDEwMogMikVhRkFqUqWRmbwURKMnOBfENzVHXFmelA8yq9PMK9C3IyM8oz8pw8DYMLk9ySzIJz3X1zMsyL3ZJD-XMNkjNck-RLA5NtlWoBhp4vSw__"
	)
	for name, tc := range map[string]struct {
		in      string
		secrets []string
		want    string
	}{
		"plain words stay":               {in: "userID is error., userID=nobody", want: "userID is error., userID=nobody"},
		"one line":                       {in: "a\r\n\tb\u2028c\x00d", want: "a b cd"},
		"token after an equals sign":     {in: "jwt parse error, token=" + jwt, want: "jwt parse error, token=[redacted]"},
		"token in JSON":                  {in: `{"token":"` + jwt + `","n":1}`, want: `{"token":"[redacted]","n":1}`},
		"usersig in a URL":               {in: "https://x/v4?usersig=" + sig + "&random=1", want: "https://x/v4?usersig=[redacted]&random=1"},
		"usersig, escaped":               {in: "usersig=" + strings.ReplaceAll(sig, "_", "%5F") + "&x", want: "usersig=[redacted]&x"},
		"usersig, uncompressed":          {in: "usersig=eAEBoQBe-3siVExTLnZl", want: "usersig=[redacted]"},
		"token with a control inside":    {in: "token=" + jwt[:20] + "\x01" + jwt[20:], want: "token=[redacted]"},
		"connection id":                  {in: "conn 0ed0d156011f3216626b00ef42b7ee2e lost", want: "conn [redacted] lost"},
		"names of hosts stay":            {in: "lookup im-server.production.svc.cluster.local: no such host", want: "lookup im-server.production.svc.cluster.local: no such host"},
		"short token":                    {in: "token eyJhbGciOiJub25lIn0. bad", want: "token [redacted] bad"},
		"two tokens in a word":           {in: jwt + "," + jwt, want: "[redacted],[redacted]"},
		"known secret, however it looks": {in: "secret openIM123 invalid", secrets: []string{"", "openIM123"}, want: "secret [redacted] invalid"},
		"secret with a control inside":   {in: "secret made-\x7fup-key invalid", secrets: []string{"made-up-key"}, want: "secret [redacted] invalid"},
		"invalid UTF-8":                  {in: "a\xffb", want: "a?b"},
		"empty":                          {},
	} {
		t.Run(name, func(t *testing.T) {
			if got := CleanText(tc.in, tc.secrets...); got != tc.want {
				t.Errorf("CleanText(%q)\n got %q\nwant %q", tc.in, got, tc.want)
			}
		})
	}
}

func TestCleanText_bounded(t *testing.T) {
	got := CleanText(strings.Repeat("wörter ", 100))
	if len(got) > maxText+len("…") || !strings.HasSuffix(got, "…") || !utf8.ValidString(got) {
		t.Errorf("got %d bytes, valid %v: %q", len(got), utf8.ValidString(got), got)
	}
	// Nothing but runs to hide: the time must not grow with their number squared.
	huge := strings.Repeat(strings.Repeat("a", 40)+"=", (2<<20)/41)
	begin := time.Now()
	CleanText(huge)
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("%d bytes took %s", len(huge), took)
	}
}

func TestClass(t *testing.T) {
	names := map[Class]string{
		ClassTransient: "transient", ClassThrottled: "throttled", ClassUnauthorised: "unauthorised",
		ClassFatal: "fatal", ClassBadBatch: "bad_batch", ClassPerUser: "per_user", 77: "class(77)",
	}
	for class, want := range names {
		if got := class.String(); got != want {
			t.Errorf("class %d is called %q, want %q", uint8(class), got, want)
		}
	}
	var zero Class
	if zero != ClassTransient {
		t.Errorf("the zero class is %s: an unmapped code must be transient", zero)
	}
}

func TestClassOf(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want Class
	}{
		"an Error":            {&Error{Class: ClassFatal}, ClassFatal},
		"wrapped":             {fmt.Errorf("page 3: %w", &Error{Class: ClassBadBatch}), ClassBadBatch},
		"something else":      {errors.New("odd"), ClassTransient},
		"nothing":             {nil, ClassTransient},
		"cause of an Error":   {&Error{Class: ClassThrottled, Err: errors.New("x")}, ClassThrottled},
		"an Error in a group": {errors.Join(errors.New("x"), &Error{Class: ClassPerUser}), ClassPerUser},
	} {
		if got := ClassOf(tc.err); got != tc.want {
			t.Errorf("%s: class %s, want %s", name, got, tc.want)
		}
	}
}

func TestError_text(t *testing.T) {
	for want, e := range map[string]*Error{
		"tencent account_check: code 70402: bad parameter": {Provider: ProviderTencent, API: "account_check", Code: "70402", Text: "bad parameter", HTTPStatus: 200},
		"openim account_check: HTTP 502":                   {Provider: ProviderOpenIM, API: "account_check", HTTPStatus: 502},
		"openim account_check: HTTP 502 Bad Gateway":       {Provider: ProviderOpenIM, API: "account_check", HTTPStatus: 502, Text: "HTTP 502 Bad Gateway"},
		"openim user_token: boom":                          {Provider: ProviderOpenIM, API: "user_token", Err: errors.New("boom")},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestIsContext(t *testing.T) {
	for err, want := range map[error]bool{
		context.Canceled: true,
		fmt.Errorf("page 3: %w", context.DeadlineExceeded): true,
		errors.New("odd"): false,
		&Error{Text: "no answer within the timeout of 8s"}: false,
	} {
		if got := IsContext(err); got != want {
			t.Errorf("IsContext(%v) = %v", err, got)
		}
	}
}
