package imclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// maxInFlight bounds the calls of one API of one client that are on the wire or
// wait for their call time, so that a backend that hangs holds a bounded number
// of connections. At 200 calls a second it allows answers that take a third of a
// second.
const maxInFlight = 64

// answerSlack is how long an answer may be however few users it is about: an
// error page, or the hundreds of connections of one OpenIM user.
const answerSlack = 256 << 10

// maxHeader bounds the header of an answer. net/http takes 10 MiB by default.
const maxHeader = 64 << 10

// HTTPConfig is what a client needs to make calls.
type HTTPConfig struct {
	Provider Provider
	// Timeout bounds one call from sending to the last byte of the answer.
	// The backends set no deadline of their own that can be relied on.
	Timeout time.Duration
	// Now is the clock by which answers are dated: the database's.
	Now func() time.Time
	// CAs are the only ones whose certificates are believed; nil: the system's.
	CAs *x509.CertPool
	// Proxy carries all calls; nil: none does. The environment's HTTP_PROXY and
	// HTTPS_PROXY are ignored, because requests hold secrets: only the operator may
	// decide who else sees them.
	Proxy *url.URL
	// Transport replaces the transport; nil means a pooled one of our own.
	Transport http.RoundTripper
	// Around puts something around the transport; nil means nothing.
	Around func(http.RoundTripper) http.RoundTripper
	// Observer is told about the calls; nil: nobody is.
	Observer Observer
}

// HTTP is the one way in which clients make calls: pooled connections that stay
// open, no redirects, bounded answers, transport failures classified, and
// nothing secret in an error. Safe for concurrent use.
type HTTP struct {
	provider Provider
	client   *http.Client
	base     final
	timeout  time.Duration
	now      func() time.Time
	observer Observer
	room     *room

	mu       sync.Mutex
	inFlight map[string]chan struct{} // by API: one that is paused holds up no other
}

// NewHTTP makes the plumbing of one client.
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
			// What HTTP/2 lets a server send before it is read; 4 MiB and 1 GiB by default.
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

// tunnelError is a proxy's refusal of a connection.
type tunnelError struct{ status int }

func (e *tunnelError) Error() string {
	return fmt.Sprintf("the proxy answers with HTTP %d %s", e.status, http.StatusText(e.status))
}

// fatal reports whether the refusal lasts until the operator changes something: all
// but what statusClass calls transient or throttled.
func (e *tunnelError) fatal() bool {
	class := statusClass(e.status)
	return class != ClassTransient && class != ClassThrottled
}

// checkTunnel returns an error unless a proxy has made the connection that it was
// asked for. Go's own error is the proxy's text, which can be anything.
func checkTunnel(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode != http.StatusOK {
		return &tunnelError{answer.StatusCode}
	}
	return nil
}

// Close closes the idle connections.
func (h *HTTP) Close() {
	if closer, ok := h.base.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// final is the last transport before the connection. It lets Post change a request
// until it is written, of which others may have made copies.
type final struct{ next http.RoundTripper }

// finalKey is the context's key of a **http.Request, where final puts its own copy.
type finalKey struct{}

// RoundTrip sends a copy of the request: a transport must not change its caller's.
func (f final) RoundTrip(r *http.Request) (*http.Response, error) {
	if place, ok := r.Context().Value(finalKey{}).(**http.Request); ok {
		r = r.Clone(r.Context())
		*place = r
	}
	return f.next.RoundTrip(r)
}

// Request is one call to make.
type Request struct {
	API    string // for errors, e.g. "account_check"
	Gate   *Gate  // nil: the call does not count against a limit (logins)
	URL    string // with its query, which never appears in an error
	Header http.Header
	Body   []byte
	// Authorise puts a token or a signature into the request, as late as can be:
	// after the wait for a call time, and again after each further one. What it needs
	// may have changed meanwhile. nil: the call needs none.
	Authorise func(ctx context.Context, r *http.Request) error
	// Answer reads the answer with Decoder.Answer, whatever its HTTP status: there
	// may be a code of the provider in it. nil: it is skipped.
	Answer func(*Decoder)
	// Users is how many users the request is about, and BytesPerUser the most that
	// an answer has about each of them, on average. They bound the answer.
	Users, BytesPerUser int
	// Sent, when not nil, is counted up when the request is about to be sent.
	Sent *int
}

// Reply is an answer, with HTTP status 200 or, where the provider puts its codes
// there too, another status.
type Reply struct {
	Status     int
	Bytes      int64  // of the body that were read
	Fault      string // why what Request.Answer read is no answer; "" if it is one
	WrongType  bool   // some value was not of the type that Request.Answer asked for
	RetryAfter time.Duration
	// Date is the server's clock by its Date header, in whole seconds; zero when
	// it sent none.
	Date time.Time
	// AskedAt and AnsweredAt enclose the instant that the answer describes.
	AskedAt, AnsweredAt time.Time
}

// Post makes one call. It waits for the gate first. A context that ends is
// returned as it is; all else that goes wrong is an *Error: no connection, a
// timeout, an answer cut off by the network (transient), a redirect or a server's
// certificate that is not believed (fatal).
// HTTP statuses are the caller's to judge, with StatusError, once it has looked
// for the provider's own code in the body; it then calls Judged. Of a call that
// was sent and failed on its way the reply has its times alone.
func (h *HTTP) Post(ctx context.Context, r Request) (Reply, error) {
	// The place in flight comes first: a call time must be used when it comes.
	places := h.places(r.API)
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	case <-ctx.Done():
		return Reply{}, ctx.Err()
	}
	callCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var last *http.Request // as it will be written
	var at time.Time
	var refused error
	trace := &httptrace.ClientTrace{}
	sendCtx := context.WithValue(httptrace.WithClientTrace(callCtx, trace), finalKey{}, &last)
	req, err := http.NewRequestWithContext(sendCtx, http.MethodPost, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return Reply{}, h.error(callCtx, r, "make the request", err) // never sent
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	if at, err = h.ready(ctx, r, req, time.Time{}); err != nil {
		return Reply{}, err
	}
	deadline := time.AfterFunc(h.timeout, func() { cancel(errTimeout) })
	defer deadline.Stop()
	reply := Reply{AskedAt: h.now()}
	// The request is written as soon as there is a connection. When it took time
	// to get one, because it is new or the machine is busy, the call takes a new
	// call time: late calls would arrive together with those that are in time.
	if r.Gate != nil {
		trace.WroteRequest = func(httptrace.WroteRequestInfo) { r.Gate.Sent(at) }
	}
	trace.GotConn = func(httptrace.GotConnInfo) {
		if r.Gate == nil || !r.Gate.Missed(at) {
			return
		}
		deadline.Stop()
		if at, refused = h.ready(callCtx, r, last, at); refused != nil {
			cancel(refused)
			return
		}
		deadline.Reset(h.timeout)
		reply.AskedAt = h.now()
	}
	if r.Sent != nil {
		*r.Sent++
	}
	resp, err := h.client.Do(req)
	if err != nil {
		if refused != nil && ctx.Err() == nil {
			if r.Sent != nil {
				*r.Sent--
			}
			return Reply{}, refused
		}
		reply.AnsweredAt = h.now()
		return reply, h.error(callCtx, r, "send the request", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		reply.AnsweredAt = h.now()
		return reply, &Error{Provider: h.provider, API: r.API, Class: ClassFatal, HTTPStatus: resp.StatusCode,
			Text: fmt.Sprintf("the server redirects (HTTP %d) to %s; set base_url (or region) to where the API really is",
				resp.StatusCode, CleanText(hostOf(resp.Header.Get("Location"))))}
	}
	err = h.read(callCtx, r, resp.Body, &reply)
	reply.AnsweredAt = h.now()
	if err != nil {
		return reply, err
	}
	reply.Status = resp.StatusCode
	reply.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), reply.AnsweredAt)
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		reply.Date = date
	}
	return reply, nil
}

// read reads the body of an answer into the reply, as far as it is JSON. ctx is
// that of the call.
func (h *HTTP) read(ctx context.Context, r Request, body io.Reader, reply *Reply) error {
	leave, err := h.room.enter(ctx, h, readingBytes+int64(r.Users)*keptPerUser)
	if err != nil {
		return h.error(ctx, r, "wait until the answers to other calls are read", err)
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
		return h.error(ctx, r, "read the answer", err)
	}
	reply.Bytes, reply.WrongType = d.source.read, d.WrongType
	switch {
	case whole:
	case errors.Is(d.err, jsontext.ErrDuplicateName):
		reply.Fault = "the answer has two members of one name in an object"
	case errors.Is(d.err, errTooLong):
		reply.Fault = fmt.Sprintf("the answer is longer than %d bytes, or has a value longer than %d", limit, maxValue)
	case errors.Is(d.err, errTooMany):
		reply.Fault = fmt.Sprintf("the answer has far more users than the %d asked about", r.Users)
	default:
		// To the end, so that the connection can be used again: error pages are short.
		rest, _ := io.CopyN(io.Discard, body, answerSlack)
		reply.Fault = fmt.Sprintf("the answer (%d bytes) is cut off or no reply of the API", reply.Bytes+rest)
	}
	return nil
}

// ready waits for a call time, or for another one if missed is set, and authorises
// the request. If that takes so long that the call time is missed, it takes another
// one, so that both are good when ready returns.
func (h *HTTP) ready(ctx context.Context, r Request, req *http.Request, missed time.Time) (at time.Time, err error) {
	for at = missed; ; {
		if r.Gate != nil {
			if at, err = h.pass(ctx, r, at); err != nil {
				return at, err
			}
		}
		if r.Authorise == nil {
			return at, nil
		}
		if err := r.Authorise(ctx, req); err != nil || r.Gate == nil || !r.Gate.Missed(at) {
			return at, err
		}
	}
}

// pass waits for a call time; missed is the one that was missed, if any.
func (h *HTTP) pass(ctx context.Context, r Request, missed time.Time) (at time.Time, err error) {
	return h.waited(ctx, r, func() (time.Time, error) {
		if missed.IsZero() {
			return r.Gate.Wait(ctx)
		}
		return r.Gate.Again(ctx, missed)
	})
}

// waited tells the observer of a wait for a call time, and gives the call's name
// to an error of its gate.
func (h *HTTP) waited(ctx context.Context, r Request, wait func() (time.Time, error)) (at time.Time, err error) {
	begun := time.Now()
	at, err = wait()
	if h.observer != nil {
		h.observer.Waited(ctx, r.API, time.Since(begun))
	}
	if e, ok := errors.AsType[*Error](err); ok {
		e.Provider, e.API = h.provider, r.API
	}
	return at, err
}

// errTimeout ends a call that takes too long.
var errTimeout = errors.New("the call's timeout is over")

// places holds a place for each call of an API that is in flight.
func (h *HTTP) places(api string) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inFlight[api] == nil {
		h.inFlight[api] = make(chan struct{}, maxInFlight)
	}
	return h.inFlight[api]
}

// error returns a transport failure as an *Error. It is transient, unless the operator has to
// correct a certificate or a proxy. ctx is that of the call. Go's *url.Error prints the whole URL, in which Tencent's signature stands, so only its cause is kept.
func (h *HTTP) error(ctx context.Context, r Request, doing string, err error) error {
	timedOut := errors.Is(context.Cause(ctx), errTimeout)
	if ctx.Err() != nil && !timedOut {
		return ctx.Err()
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	text, advice := CleanText(err.Error()), certificateAdvice(err)
	switch {
	case timedOut:
		text = fmt.Sprintf("no answer within the timeout of %s", h.timeout)
		err = nil // our own deadline for one call, not the end of the caller's context
	case text != err.Error():
		err = errors.New(text) // a server's own words, e.g. a bad Location, may repeat our URL
	}
	class := ClassTransient
	if tunnel, ok := errors.AsType[*tunnelError](err); ok && tunnel.fatal() {
		advice = "check the app's proxy, and that it lets this machine reach the API"
	}
	if advice != "" {
		class, text = ClassFatal, text+"; "+advice
	}
	return &Error{Provider: h.provider, API: r.API, Class: class, Text: doing + ": " + text, Err: err}
}

// StatusError is the failure that an HTTP status stands for when the body holds
// no code of the provider: 429 throttled; 5xx, 408 and 425 transient; 413 bad
// batch; any other status that is not 200 means that something else than the
// API answers at this address, or refuses us there: fatal. nil for 200.
func (h *HTTP) StatusError(api string, r Reply) error {
	e := &Error{Provider: h.provider, API: api, HTTPStatus: r.Status, RetryAfter: r.RetryAfter}
	if r.Status == http.StatusOK {
		return nil
	}
	e.Class = statusClass(r.Status)
	e.Text = fmt.Sprintf("HTTP %d %s", r.Status, http.StatusText(r.Status))
	switch {
	case r.Status == http.StatusProxyAuthRequired:
		e.Text += ": check the user and password in the app's proxy"
	case e.Class == ClassFatal:
		e.Text += ": check base_url (or region) and what stands between"
	}
	return e
}

// statusClass returns the class of an HTTP status that is not 200.
func statusClass(status int) Class {
	switch {
	case status == http.StatusTooManyRequests:
		return ClassThrottled
	case status >= 500, status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return ClassTransient
	case status == http.StatusRequestEntityTooLarge:
		return ClassBadBatch
	default:
		return ClassFatal
	}
}

// hostOf gives the scheme and host of a URL; its path and query may hold secrets.
func hostOf(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return "another address"
	}
	return u.Scheme + "://" + u.Host
}

// maxRetryAfter bounds a Retry-After that a broken proxy could set to years.
const maxRetryAfter = time.Hour

func retryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	var d time.Duration
	if seconds, err := strconv.Atoi(v); err == nil {
		// In bounds before it is multiplied: a large one would wrap around.
		d = time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// CheckBaseURL says what makes s unfit as the address of a provider's API. A
// path is allowed, for proxies; anything after it would end up in odd places.
func CheckBaseURL(s string) error {
	if s == "" {
		return errors.New("base_url (or region) is missing")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return errors.New("base_url must be https://host or http://host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("base_url must hold neither user, query nor fragment")
	}
	return nil
}
