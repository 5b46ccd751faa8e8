package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// masked is what is seen of a secret.
const masked = "[secret]"

// Secret is a value that no print, log or encoding shows: every way of
// formatting it gives "[secret]". Only Reveal and a conversion give the value.
type Secret string

// Reveal gives the value itself, to be handed to what needs it and kept nowhere.
func (s Secret) Reveal() string { return string(s) }

// String gives "[secret]".
func (Secret) String() string { return masked }

// GoString gives "[secret]".
func (Secret) GoString() string { return masked }

// Format writes "[secret]" for every verb: without it, a verb that does not fit
// a string, such as %d, prints the value.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// MarshalText gives "[secret]", to JSON and loggers too.
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// DatabaseURL is a Postgres connection URL, or keywords and values. It may hold
// a password, so that every way of formatting it shows only user, host, port
// and database.
type DatabaseURL string

// Reveal gives the whole URL, to be handed to the driver and kept nowhere.
func (u DatabaseURL) Reveal() string { return string(u) }

// String gives the URL without password and parameters: "" for none, "[secret]"
// for one that cannot be read.
func (u DatabaseURL) String() string {
	if u == "" {
		return ""
	}
	c, err := pgx.ParseConfig(string(u))
	if err != nil || u.misread() {
		return masked
	}
	hosts := []string{net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	for _, f := range c.Fallbacks {
		host := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return fmt.Sprintf("postgres://%s@%s/%s", c.User, strings.Join(hosts, ","), c.Database)
}

// Unverified lists the servers on other machines that are believed without a
// look at their certificate, or spoken to without TLS.
func (u DatabaseURL) Unverified() []string {
	c, err := pgx.ParseConfig(string(u))
	if u == "" || err != nil {
		return nil
	}
	var hosts []string
	look := func(host string, port uint16, tls *tls.Config) {
		// With verify-ca the driver switches Go's check off, and has its own.
		verified := tls != nil && (!tls.InsecureSkipVerify || tls.VerifyPeerCertificate != nil)
		address := net.JoinHostPort(host, strconv.Itoa(int(port)))
		if !verified && !strings.HasPrefix(host, "/") && !loopback(host) && !slices.Contains(hosts, address) {
			hosts = append(hosts, address)
		}
	}
	look(c.Host, c.Port, c.TLSConfig)
	for _, f := range c.Fallbacks {
		look(f.Host, f.Port, f.TLSConfig)
	}
	return hosts
}

// GoString is String.
func (u DatabaseURL) GoString() string { return u.String() }

// Format writes String for every verb.
func (u DatabaseURL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// MarshalText is String, to JSON and loggers too.
func (u DatabaseURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

var passwordInURL = regexp.MustCompile(`(?i)^\w+://[^/?]*:[^/?]*@|password\s*=`)

// holdsPassword reports whether a password stands in the URL itself.
func (u DatabaseURL) holdsPassword() bool { return passwordInURL.MatchString(string(u)) }

// misread reports whether the driver would take a part of the password for
// something else, which is shown: in a URL whose password has an @, /, ? or # that
// is not %-encoded, a second @ follows, or one behind what ends the host.
func (u DatabaseURL) misread() bool {
	scheme, rest, _ := strings.Cut(string(u), "://")
	if scheme != "postgres" && scheme != "postgresql" {
		return false
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	path, query, _ := strings.Cut(rest[end:], "?")
	parameter, _, _ := strings.Cut(query, "=") // a parameter's value may hold an @
	return strings.Count(rest[:end], "@") > 1 || strings.ContainsAny(path+parameter, "@#") || strings.Contains(query, "#")
}

// wrongInURL are the driver's own words for what is wrong, and ours. Only words
// from this list are repeated, because the driver's may quote parts of the URL.
var wrongInURL = []struct{ driver, ours string }{
	{"could not match", "hosts and ports differ in number"},
	{"invalid port", "the port is no number from 1 to 65535"},
	{"sslmode is invalid", "unknown sslmode"},
	{"failed to configure TLS", "the TLS settings are wrong (sslmode, sslrootcert, sslcert, sslkey)"},
	{"target_session_attrs", "unknown target_session_attrs"},
	{"connect_timeout", "connect_timeout is no number of seconds"},
	{"failed to read service", "its service is not in the service file"},
	{"pool_", "a pool_ parameter has a bad value"},
}

// problem says what is wrong with the URL, "" if nothing, and repeats nothing of
// it: where a password ends is unclear in a text that cannot be read.
func (u DatabaseURL) problem() string {
	var why string
	switch c, err := pgxpool.ParseConfig(string(u)); {
	case strings.HasPrefix(string(u), "jdbc:"):
		why = "jdbc: is Java's form, with user and password as parameters"
	case u.misread():
		why = "an @ or # stands where none can"
	case err == nil:
		return foreignParameter(c.ConnConfig.RuntimeParams)
	default:
		why = whyUnreadable(err)
	}
	return "is no Postgres connection string: " + why +
		` (want "postgres://user:password@host:5432/database" with special characters of the password %-encoded, or "host=… user=… dbname=…")`
}

// foreignParameters are parameters of connection strings that other programs read
// and Postgres refuses, with what to do here. Sources: PostgreSQL, "Parameter Key
// Words" of libpq; Prisma, "Connection URL".
var foreignParameters = map[string]string{
	"pgbouncer":                 "set poll_only = true in [database] instead",
	"schema":                    "set schema in [database] instead",
	"connection_limit":          "set max_conns in [database] instead",
	"pool_timeout":              "it is Prisma's",
	"socket_timeout":            "it is Prisma's",
	"statement_cache_size":      "it is Prisma's; this program's is statement_cache_capacity",
	"sslaccept":                 "it is Prisma's; use sslmode",
	"keepalives":                "syncer sets keep-alives itself",
	"keepalives_idle":           "syncer sets keep-alives itself",
	"keepalives_interval":       "syncer sets keep-alives itself",
	"keepalives_count":          "syncer sets keep-alives itself",
	"gssencmode":                "GSSAPI encryption is not supported; use sslmode",
	"requirepeer":               "it is not supported",
	"sslcrl":                    "it is not supported",
	"sslcompression":            "it is not supported",
	"load_balance_hosts":        "it is not supported; name several hosts and target_session_attrs",
	"fallback_application_name": "syncer sets application_name itself",
}

// foreignParameter says that one of the parameters is another program's, "" if none
// is. It shows names alone, and only those it knows.
func foreignParameter(parameters map[string]string) string {
	var found []string
	for name := range parameters {
		if advice, ok := foreignParameters[name]; ok {
			found = append(found, fmt.Sprintf("the parameter %s, which Postgres refuses: %s", name, advice))
		}
	}
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return "holds " + strings.Join(found, "; ")
}

// whyUnreadable is what the driver says of a URL, in words that hold none of it.
func whyUnreadable(err error) string {
	if file, ok := errors.AsType[*fs.PathError](err); ok && !strings.ContainsAny(file.Path, "=@ ") {
		return "it names a file that cannot be read: " + file.Error()
	}
	// The driver's text begins with the URL, its password replaced as well as it
	// can; a host or database name may hold the words by chance.
	_, text, _ := strings.Cut(err.Error(), "`: ")
	for _, w := range wrongInURL {
		if strings.Contains(text, w.driver) {
			return w.ours
		}
	}
	return "it cannot be read"
}

// Format writes the section with its secret masked, for every verb: a verb that
// does not fit a pointer makes fmt print what it points to without asking anybody.
func (t Tencent) Format(f fmt.State, _ rune) {
	type plain Tencent
	_, _ = fmt.Fprintf(f, "%+v", plain(t))
}

// Format is as with Tencent.
func (o OpenIM) Format(f fmt.State, _ rune) {
	type plain OpenIM
	_, _ = fmt.Fprintf(f, "%+v", plain(o))
}
