package main

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// plainClient asks Tencent Chat about presence as one would in a script. It
// shares nothing with syncer's own client, so that it can check it.
type plainClient struct {
	url  string // with everything but the random number
	http *http.Client
}

func newPlainClient(base string, now time.Time) (*plainClient, error) {
	sig, err := userSig(now)
	if err != nil {
		return nil, err
	}
	query := url.Values{"sdkappid": {strconv.Itoa(sdkAppID)}, "identifier": {identifier}, "usersig": {sig}, "contenttype": {"json"}}
	return &plainClient{url: base + "/v4/openim/query_online_status?" + query.Encode(), http: &http.Client{Timeout: time.Minute}}, nil
}

// userSig signs for an hour, as the document "Generating UserSig" has it.
func userSig(now time.Time) (string, error) {
	const ttl = 3600
	mac := hmac.New(sha256.New, []byte(secretKey))
	fmt.Fprintf(mac, "TLS.identifier:%s\nTLS.sdkappid:%d\nTLS.time:%d\nTLS.expire:%d\n", identifier, sdkAppID, now.Unix(), ttl)
	doc, err := json.Marshal(map[string]any{
		"TLS.ver": "2.0", "TLS.identifier": identifier, "TLS.sdkappid": sdkAppID, "TLS.time": now.Unix(), "TLS.expire": ttl, "TLS.sig": mac.Sum(nil),
	})
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	if _, err := z.Write(doc); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return strings.NewReplacer("+", "*", "/", "-", "=", "_").Replace(base64.StdEncoding.EncodeToString(packed.Bytes())), nil
}

// batch is how many users one call may ask about.
const batch = 500

// ask returns the body of an answer.
func (c *plainClient) ask(ctx context.Context, ids []string) ([]byte, error) {
	question, err := json.Marshal(map[string]any{"To_Account": ids, "IsNeedDetail": 1})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"&random="+strconv.FormatUint(uint64(rand.Uint32()), 10), bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

// answer is what is read of a body.
type answer struct {
	ErrorCode   int
	ErrorInfo   string
	QueryResult []userAnswer
	ErrorList   []struct{ ErrorCode int }
}

type userAnswer struct {
	UserID string `json:"To_Account"`
	State  string
	Detail []struct{ Platform, Status string }
}

// decode reads a body with an answer about so many users.
func decode(body []byte, users int) ([]userAnswer, error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, err
	}
	if a.ErrorCode != 0 || len(a.ErrorList) > 0 || len(a.QueryResult) != users {
		return nil, fmt.Errorf("answer %d %s: %d users answered of %d, %d with an error", a.ErrorCode, a.ErrorInfo, len(a.QueryResult), users, len(a.ErrorList))
	}
	return a.QueryResult, nil
}

// states and platforms are the provider's words in syncer's.
var (
	states    = map[string]string{"Online": "online", "PushOnline": "push_online", "Offline": "offline"}
	platforms = map[string]string{
		"iPhone": "ios", "iPad": "ipad", "Android": "android", "Web": "web", "PC": "windows", "Mac": "macos", "Linux": "linux",
	}
)

// state is the user's in syncer's words.
func (u userAnswer) state() string { return states[u.State] }

// platforms is the platforms' jsonb as Postgres prints it: shorter keys first.
// Of two devices on one platform the one that is online counts.
func (u userAnswer) platforms() string {
	if len(u.Detail) == 0 {
		return "{}"
	}
	type entry struct{ platform, status string }
	var entries []entry
next:
	for _, d := range u.Detail {
		e := entry{platforms[d.Platform], states[d.Status]}
		for i := range entries {
			if entries[i].platform == e.platform {
				if e.status == "online" {
					entries[i].status = e.status
				}
				continue next
			}
		}
		at := len(entries)
		for at > 0 && (len(e.platform) < len(entries[at-1].platform) || len(e.platform) == len(entries[at-1].platform) && e.platform < entries[at-1].platform) {
			at--
		}
		entries = append(entries, e)
		copy(entries[at+1:], entries[at:])
		entries[at] = e
	}
	var b strings.Builder
	for i, e := range entries {
		b.WriteString([]string{"{", ", "}[min(i, 1)])
		b.WriteString(`"` + e.platform + `": "` + e.status + `"`)
	}
	return b.String() + "}"
}
