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

// masked replaces a secret in output.
const masked = "[secret]"

// Secret is a value that is never printed, logged or encoded: every format is
// "[secret]". Only Reveal and a conversion return the value.
type Secret string

// Reveal returns the value, to be passed on and not stored.
func (s Secret) Reveal() string { return string(s) }

// String returns "[secret]".
func (Secret) String() string { return masked }

// GoString returns "[secret]".
func (Secret) GoString() string { return masked }

// Format writes "[secret]" for every verb. Without it, a verb that does not fit a
// string, such as %d, would print the value.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// MarshalText returns "[secret]", also for JSON and loggers.
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// DatabaseURL is a Postgres connection URL, or keywords and values. It may contain a
// password, so every format shows only user, host, port and database.
type DatabaseURL string

// Reveal returns the whole URL, to be passed to the driver and not stored.
func (u DatabaseURL) Reveal() string { return string(u) }

// String returns the URL without password and parameters: "" if it is empty,
// "[secret]" if it cannot be parsed.
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

// Unverified returns the servers on other machines whose certificate is not verified
// or whose connection has no TLS.
func (u DatabaseURL) Unverified() []string {
	c, err := pgx.ParseConfig(string(u))
	if u == "" || err != nil {
		return nil
	}
	var hosts []string
	look := func(host string, port uint16, tls *tls.Config) {
		// With verify-ca the driver replaces Go's verification by its own.
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

// holdsPassword reports whether the URL itself contains a password.
func (u DatabaseURL) holdsPassword() bool { return passwordInURL.MatchString(string(u)) }

// misread reports whether the driver would take part of the password for something
// that is shown. If the password of a URL contains an unencoded @, /, ? or #, a
// second @ follows, or one after the end of the host.
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
	parameter, _, _ := strings.Cut(query, "=") // a parameter's value may contain an @
	return strings.Count(rest[:end], "@") > 1 || strings.ContainsAny(path+parameter, "@#") || strings.Contains(query, "#")
}

// wrongInURL maps the driver's error texts to ours. Only the latter are shown,
// because the driver's may quote parts of the URL.
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

// problem returns what is wrong with the URL, "" if nothing. It repeats nothing of
// the URL: in an unparsable text the end of the password is unknown.
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

// foreignParameters are parameters of other programs, which Postgres rejects, with
// what to do instead. Sources: PostgreSQL, "Parameter Key Words" of libpq; Prisma,
// "Connection URL".
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

// foreignParameter returns the problem of parameters of other programs, "" if there
// are none. It shows only names in foreignParameters.
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

// whyUnreadable returns the reason of a driver error in words without parts of the
// URL.
func whyUnreadable(err error) string {
	if file, ok := errors.AsType[*fs.PathError](err); ok && !strings.ContainsAny(file.Path, "=@ ") {
		return "it names a file that cannot be read: " + file.Error()
	}
	// The driver's text begins with the URL, whose password it masks as well as it
	// can. A host or database name may contain one of the words by chance.
	_, text, _ := strings.Cut(err.Error(), "`: ")
	for _, w := range wrongInURL {
		if strings.Contains(text, w.driver) {
			return w.ours
		}
	}
	return "it cannot be read"
}
