package imclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// error returns the *Error of a transport failure, or ctx's error if the caller's
// context ended; ctx is the call's. The error is transient unless the operator has to
// fix a certificate or a proxy. It keeps only the cause of a *url.Error, whose text repeats the
// URL and with it Tencent's signature.
func (h *HTTP) error(ctx context.Context, api, doing string, err error) error {
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
		err = errors.New(text) // a server's own words, such as a bad Location, may repeat our URL
	}
	class := ClassTransient
	if tunnel, ok := errors.AsType[*tunnelError](err); ok && tunnel.fatal() {
		advice = "check the app's proxy, and that it lets this machine reach the API"
	}
	if advice != "" {
		class, text = ClassFatal, text+"; "+advice
	}
	return &Error{Provider: h.provider, API: api, Class: class, Text: doing + ": " + text, Err: err}
}

// redirected returns the fatal *Error of a redirect.
func (h *HTTP) redirected(api string, resp *http.Response) error {
	return &Error{Provider: h.provider, API: api, Class: ClassFatal, HTTPStatus: resp.StatusCode,
		Text: fmt.Sprintf("the server redirects (HTTP %d) to %s; set base_url (or region) to where the API really is",
			resp.StatusCode, CleanText(hostOf(resp.Header.Get("Location"))))}
}

// statusError returns the *Error that an HTTP status stands for if the body holds no
// code of the provider, nil for 200. Its class is statusClass.
func (h *HTTP) statusError(api string, r Reply) error {
	if r.Status == http.StatusOK {
		return nil
	}
	e := &Error{Provider: h.provider, API: api, Class: statusClass(r.Status), HTTPStatus: r.Status, RetryAfter: r.RetryAfter,
		Text: fmt.Sprintf("HTTP %d %s", r.Status, http.StatusText(r.Status))}
	switch {
	case r.Status == http.StatusProxyAuthRequired:
		e.Text += ": check the user and password in the app's proxy"
	case e.Class == ClassFatal:
		e.Text += ": check base_url (or region) and what stands between"
	}
	return e
}

// statusClass returns the class of an HTTP status other than 200: 429 is throttled; 5xx,
// 408 and 425 are transient; 413 is a bad batch. Any other is fatal, because something
// else than the API answers at this address, or refuses the call.
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

// tunnelError is a proxy's refusal to connect to the API.
type tunnelError struct{ status int }

func (e *tunnelError) Error() string {
	return fmt.Sprintf("the proxy answers with HTTP %d %s", e.status, http.StatusText(e.status))
}

// fatal reports whether the refusal lasts until the operator changes something.
func (e *tunnelError) fatal() bool {
	class := statusClass(e.status)
	return class != ClassTransient && class != ClassThrottled
}

// checkTunnel returns an error unless a proxy made the connection. Go's own error is the
// proxy's text, which can be anything.
func checkTunnel(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode != http.StatusOK {
		return &tunnelError{answer.StatusCode}
	}
	return nil
}

// hostOf returns the scheme and host of a URL, whose path and query may hold secrets.
func hostOf(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return "another address"
	}
	return u.Scheme + "://" + u.Host
}

// maxRetryAfter limits a Retry-After, which a broken proxy could set to years.
const maxRetryAfter = time.Hour

// retryAfter returns the pause that a Retry-After header asks for, 0 to maxRetryAfter.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	var d time.Duration
	if seconds, err := strconv.Atoi(header); err == nil {
		// Limited before the multiplication, which could overflow.
		d = time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	} else if t, err := http.ParseTime(header); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// CheckBaseURL reports why s cannot be the address of a provider's API, nil if it can.
// A path is allowed, for proxies.
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
