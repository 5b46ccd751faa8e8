package imclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// maxInFlight limits the calls of one API of one client that are on the wire or
// waiting for their call time, and so the connections that a hanging backend can
// hold. At 200 calls a second it allows answers that take a third of a second.
const maxInFlight = 64

// answerSlack is the size in bytes that an answer may have regardless of the number
// of users, for error pages and for an OpenIM user with hundreds of connections.
const answerSlack = 256 << 10

// maxHeader limits the header of an answer, in bytes. The default of net/http is 10 MiB.
const maxHeader = 64 << 10

// HTTPConfig configures an HTTP. Provider, Timeout and Now are required; see WithDefaults.
type HTTPConfig struct {
	Provider Provider // for errors
	// Timeout limits one call, from sending to the last byte of the answer. The
	// backends have no reliable deadline of their own.
	Timeout time.Duration
	// Now is the clock of the answers' times: the database's.
	Now func() time.Time
	// CAs are the only trusted certificate authorities. If nil, the system's are.
	CAs *x509.CertPool
	// Proxy, if not nil, carries all calls. HTTP_PROXY and HTTPS_PROXY in the environment
	// are ignored, because requests hold secrets: only the operator may decide who else
	// sees them.
	Proxy *url.URL
	// Transport sends the requests. If nil, a pooled transport does.
	Transport http.RoundTripper
	// Around, if not nil, wraps the transport.
	Around func(http.RoundTripper) http.RoundTripper
	// Observer, if not nil, is notified of the calls.
	Observer Observer
}

const defaultTimeout = 8 * time.Second

// WithDefaults returns the configuration for a provider, with a Timeout of 8s and
// time.Now as the clock unless they are set.
func (c HTTPConfig) WithDefaults(p Provider) HTTPConfig {
	c.Provider, c.Timeout = p, cmp.Or(c.Timeout, defaultTimeout)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Validate reports what is wrong with the configuration, nil if nothing is.
func (c HTTPConfig) Validate() error {
	if c.Timeout <= 0 {
		return fmt.Errorf("timeout is %s, not positive", c.Timeout)
	}
	return nil
}

// HTTP sends the calls of one client: over pooled connections, without following
// redirects, with bounded answers, classified transport failures, and no secrets in
// errors. Safe for concurrent use.
type HTTP struct {
	provider Provider
	client   *http.Client
	base     final
	timeout  time.Duration
	now      func() time.Time
	observer Observer
	room     *room

	mu       sync.Mutex
	inFlight map[string]chan struct{} // by API, so that a paused one does not block the others
}

// NewHTTP returns an HTTP. It opens no connection.
func NewHTTP(c HTTPConfig) *HTTP {
	transport := c.Transport
	if transport == nil {
		dialer := &net.Dialer{Timeout: c.Timeout, KeepAlive: 30 * time.Second}
		transport = &http.Transport{
			Proxy:               http.ProxyURL(c.Proxy),
			DialContext:         dialer.DialContext,
			TLSHandshakeTimeout: c.Timeout,
			TLSClientConfig:     &tls.Config{RootCAs: c.CAs, MinVersion: tls.VersionTLS12},
			// The default of 2 would close and reopen connections all the time.
			MaxIdleConns:        maxInFlight,
			MaxIdleConnsPerHost: maxInFlight,
			IdleConnTimeout:     90 * time.Second,
			ForceAttemptHTTP2:   true,

			OnProxyConnectResponse: checkTunnel,
			MaxResponseHeaderBytes: maxHeader,
			// What an HTTP/2 server may send ahead; 4 MiB and 1 GiB by default.
			HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 1 << 20},
		}
	}
	base := final{transport}
	if transport = base; c.Around != nil {
		transport = c.Around(base)
	}
	return &HTTP{
		provider: c.Provider,
		base:     base,
		client: &http.Client{
			Transport: transport,
			// A redirected POST would lose its body or carry the signature elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		timeout:  c.Timeout,
		now:      c.Now,
		observer: c.Observer,
		room:     processRoom,
		inFlight: make(map[string]chan struct{}),
	}
}

// Close closes the idle connections.
func (h *HTTP) Close() {
	if closer, ok := h.base.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// httpRequest describes one call.
type httpRequest struct {
	API  string // for errors, e.g. "account_check"
	Gate *Gate  // nil: no limit applies to the call (logins)
	URL  string // its query never appears in an error
	Body []byte
	// Authorise, if not nil, adds a token or signature to the request as late as
	// possible: after the wait for a call time, and again after each further wait,
	// because the credential may have changed meanwhile.
	Authorise func(ctx context.Context, r *http.Request) error
	// Answer reads the answer with Decoder.Answer, whatever its HTTP status: it may
	// hold a provider's code. If nil, the answer is skipped.
	Answer func(*Decoder)
	// Users is how many users the request is about, BytesPerUser the largest average
	// size of an answer per user. They limit the answer's size.
	Users, BytesPerUser int
	// Sent, if not nil, is incremented when the request is about to be sent.
	Sent *int
}

// Reply is the answer to a call, of any HTTP status but a redirect.
type Reply struct {
	Status     int
	Bytes      int64  // of the body, as far as it was read
	Fault      string // why the body is not an answer; "" if it is one
	WrongType  bool   // some value did not have the type that httpRequest.Answer asked for
	Named      int    // user ids read with Decoder.UserID, without empty ones
	RetryAfter time.Duration
	// Date is the server's clock in its Date header, in whole seconds; zero without one.
	Date time.Time
	// AskedAt and AnsweredAt enclose the instant that the answer describes.
	AskedAt, AnsweredAt time.Time
}

// post makes one call, after waiting for the gate. It returns a context's error
// unchanged. All other failures are an *Error: no connection, a timeout or an answer
// cut off by the network is transient; a redirect or an untrusted certificate is fatal.
//
// The caller looks for the provider's code in the body first, then judges the HTTP
// status with statusError, and calls judged. If the call was sent and failed, the
// reply holds only its times; if it was not sent, the reply is zero.
func (h *HTTP) post(ctx context.Context, r httpRequest) (Reply, error) {
	// The place in flight comes first, because a call time must be used when it comes.
	places := h.places(r.API)
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	case <-ctx.Done():
		return Reply{}, ctx.Err()
	}
	a := h.attempt(ctx, r)
	defer a.end()
	if err := a.prepare(); err != nil {
		return Reply{}, err
	}
	resp, err := a.send()
	if err != nil {
		return a.failed(), err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return a.failed(), h.redirected(r.API, resp)
	}
	var reply Reply
	if err := h.read(a.ctx, r, resp.Body, &reply); err != nil {
		return a.failed(), err
	}
	reply.Status, reply.AskedAt, reply.AnsweredAt = resp.StatusCode, a.askedAt, h.now()
	reply.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), reply.AnsweredAt)
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		reply.Date = date
	}
	return reply, nil
}

// places returns a semaphore of the API's calls in flight.
func (h *HTTP) places(api string) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inFlight[api] == nil {
		h.inFlight[api] = make(chan struct{}, maxInFlight)
	}
	return h.inFlight[api]
}

// read reads the body of an answer into reply as far as it is JSON. ctx is the call's.
func (h *HTTP) read(ctx context.Context, r httpRequest, body io.Reader, reply *Reply) error {
	leave, err := h.room.enter(ctx, h, readingBytes+int64(r.Users)*keptPerUser)
	if err != nil {
		return h.error(ctx, r.API, "wait until the answers to other calls are read", err)
	}
	defer leave()
	limit := int64(answerSlack + r.Users*r.BytesPerUser)
	d := NewDecoder(body, limit)
	defer d.Free()
	if r.Answer != nil {
		r.Answer(d)
	} else {
		d.Skip()
	}
	whole := d.end()
	if err := d.source.err; err != nil && err != io.EOF {
		return h.error(ctx, r.API, "read the answer", err)
	}
	reply.Bytes, reply.WrongType, reply.Named = d.source.read, d.WrongType, d.named
	switch {
	case whole:
	case errors.Is(d.err, jsontext.ErrDuplicateName):
		reply.Fault = "the answer has two members of one name in an object"
	case errors.Is(d.err, errTooLong):
		reply.Fault = fmt.Sprintf("the answer is longer than %d bytes, or has a value longer than %d", limit, maxValue)
	case errors.Is(d.err, errTooMany):
		reply.Fault = fmt.Sprintf("the answer has far more users than the %d asked about", r.Users)
	default:
		// Reading to the end keeps the connection usable: error pages are short.
		rest, _ := io.CopyN(io.Discard, body, answerSlack)
		reply.Fault = noAnswer(reply.Bytes + rest)
	}
	return nil
}

// noAnswer describes a body that is not an answer of the API.
func noAnswer(bytes int64) string {
	return fmt.Sprintf("the answer (%d bytes) is cut off or no reply of the API", bytes)
}
