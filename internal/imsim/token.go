package imsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// adminPlatform is the platform number in admin tokens.
const adminPlatform = 10

// supersededFor is how long an admin token is valid after the next one was made, in
// OpenIMMain.
const supersededFor = 5 * time.Minute

// authCacheFor is how long an auth instance keeps a token that it has accepted.
const authCacheFor = 5 * time.Minute

// tokenClaims is the payload of a token, a JWT signed with HS256.
type tokenClaims struct {
	UserID     string `json:"UserID"`
	PlatformID int    `json:"PlatformID"`
	Expires    int64  `json:"exp"`
	NotBefore  int64  `json:"nbf"`
	IssuedAt   int64  `json:"iat"`
}

// tokenError is why a token is refused.
type tokenError struct {
	code    int
	name    string
	parsing bool // found in the token itself, not in the server's data
}

var (
	errTokenExpired   = &tokenError{1501, "TokenExpiredError", true}
	errTokenMalformed = &tokenError{1503, "TokenMalformedError", true}
	errTokenNotYet    = &tokenError{1504, "TokenNotValidYetError", true}
	errTokenSignature = &tokenError{1505, "TokenUnknownError", true}
	errTokenKicked    = &tokenError{1506, "TokenKickedError", false}
	errTokenNotExist  = &tokenError{1507, "TokenNotExistError", false}
)

// tokens issues and checks tokens.
type tokens struct {
	config OpenIM

	mu    sync.Mutex
	known map[string]*tokenState // by their text
	// accepted is when each token was accepted, a lost one included.
	accepted map[string]time.Time
}

type tokenState struct {
	claims     tokenClaims
	issued     time.Time // last
	kicked     bool
	superseded time.Time // when it ends; zero: not superseded
}

func newTokens(c OpenIM) *tokens {
	return &tokens{config: c, known: make(map[string]*tokenState), accepted: make(map[string]time.Time)}
}

// issue returns a token valid for ttl, which may be negative. Its times have whole
// seconds: two logins within a second get the same token, and make it valid again.
func (t *tokens) issue(userID string, platform int, ttl time.Duration, now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	claims := tokenClaims{
		UserID: userID, PlatformID: platform,
		IssuedAt: now.Unix(), NotBefore: now.Add(-5 * time.Minute).Unix(), Expires: now.Add(ttl).Unix(),
	}
	for text, s := range t.known {
		if s.claims.Expires < now.Unix() {
			delete(t.known, text)
			delete(t.accepted, text)
		} else if t.config.Version == OpenIMMain && s.claims.UserID == userID && platform == adminPlatform && s.superseded.IsZero() {
			s.superseded = now.Add(supersededFor)
		}
	}
	payload, _ := json.Marshal(claims) // strings and integers only: cannot fail
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) +
		"." + base64.RawURLEncoding.EncodeToString(payload)
	text := signed + "." + base64.RawURLEncoding.EncodeToString(t.sign(signed))
	t.known[text] = &tokenState{claims: claims, issued: now}
	return text
}

func (t *tokens) sign(signed string) []byte {
	mac := hmac.New(sha256.New, []byte(t.config.Secret))
	mac.Write([]byte(signed))
	return mac.Sum(nil)
}

// read parses a token and verifies its signature and times.
func (t *tokens) read(token string, now time.Time) (tokenClaims, *tokenError) {
	var claims tokenClaims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims, errTokenMalformed
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return claims, errTokenMalformed
		}
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	if json.Unmarshal(decoded[0], &header) != nil || json.Unmarshal(decoded[1], &claims) != nil {
		return claims, errTokenMalformed
	}
	switch {
	case header.Algorithm != "HS256" || !hmac.Equal(decoded[2], t.sign(parts[0]+"."+parts[1])):
		return claims, errTokenSignature
	case claims.Expires < now.Unix():
		return claims, errTokenExpired
	case claims.NotBefore > now.Unix():
		return claims, errTokenNotYet
	}
	return claims, nil
}

// check is read plus the server's data about the token. OpenIM383 checks only whether
// an admin token was kicked, not whether it exists.
func (t *tokens) check(token string, now time.Time) (tokenClaims, *tokenError) {
	claims, err := t.read(token, now)
	if err != nil {
		return claims, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.known[token]
	switch {
	case s != nil && s.kicked:
		return claims, errTokenKicked
	case t.config.Version == OpenIM383: // knows nothing more
	case s == nil, !s.superseded.IsZero() && now.After(s.superseded):
		return claims, errTokenNotExist
	}
	t.accepted[token] = now
	return claims, nil
}

// cached reports whether an auth instance still has a token in its cache that was
// accepted less than keep ago.
func (t *tokens) cached(token string, now time.Time, keep time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.accepted[token]
	return ok && now.Sub(at) < keep
}

// age returns how long ago a token was issued; the maximum for a lost one.
func (t *tokens) age(token string, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.known[token]; s != nil {
		return now.Sub(s.issued)
	}
	return 1<<63 - 1
}

// kick ends all tokens.
func (t *tokens) kick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.known {
		s.kicked = true
	}
}

// forget removes all tokens, as a server does that loses its Redis.
func (t *tokens) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.known)
}
