package config

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// ProxyURL is the URL of a proxy. It may hold a user and a password, so every way
// of formatting it shows only scheme, host and port.
type ProxyURL string

// Reveal returns the whole URL, nil for none. Give it to the transport and keep it
// nowhere else.
func (p ProxyURL) Reveal() *url.URL {
	u, err := url.Parse(string(p))
	if p == "" || err != nil {
		return nil
	}
	return u
}

// String returns the URL without user and password: "" for none, "[secret]" for one
// that cannot be used.
func (p ProxyURL) String() string {
	switch {
	case p == "":
		return ""
	case p.problem() != "":
		return masked
	}
	u := p.Reveal()
	return u.Scheme + "://" + u.Host
}

// GoString is String.
func (p ProxyURL) GoString() string { return p.String() }

// Format writes String for every verb.
func (p ProxyURL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// MarshalText is String, to JSON and loggers too.
func (p ProxyURL) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// holdsSecret reports whether the URL names a user: some proxies take a token in its
// place.
func (p ProxyURL) holdsSecret() bool { return strings.Contains(string(p), "@") }

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// problem says what is wrong with the URL, "" if nothing. It repeats nothing of it.
func (p ProxyURL) problem() string {
	u, err := url.Parse(string(p))
	switch {
	case err != nil, u.Hostname() == "", u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, strings.Contains(string(p), "#"):
	case u.Port() != "" && !isPort(u.Port()):
	case u.Scheme == "http", u.Scheme == "https", u.Scheme == "socks5", u.Scheme == "socks5h":
		return ""
	}
	return `is no address of a proxy (want "http://host:port", "https://…", "socks5://…" or "socks5h://…", with or without "user:password@" whose special characters are %-encoded)`
}
