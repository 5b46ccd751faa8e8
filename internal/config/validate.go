package config

import (
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// validator checks what a single value does not show: relations, references by name,
// and formats without a type of their own.
type validator struct {
	*binder
	c *Config
}

func (v validator) validate() {
	v.schema()
	v.listen()
	v.web()
	v.apps()
	v.hooks()
	v.jobs()
	v.sweep()
	v.history()
	v.traces()
}

// isGiven reports whether the file or the environment sets a setting.
func (v validator) isGiven(path string) bool {
	_, ok := v.at[path]
	return ok
}

// well reports whether none of these settings has a problem so far. Only then are
// they compared with each other.
func (v validator) well(paths ...string) bool {
	for _, p := range paths {
		if v.bad[p] {
			return false
		}
	}
	return true
}

var schemaPattern = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,30}$`)

func (v validator) schema() {
	const path = "database.schema"
	s := v.c.Database.Schema
	if !v.well(path) {
		return
	}
	switch {
	case !schemaPattern.MatchString(s):
		v.problem(path, "%s is no simple name (allowed: at most 31 lower-case letters, digits and _, no digit first)", quote(s))
	case strings.HasPrefix(s, "pg_"), s == "information_schema":
		v.problem(path, "%s is a schema of Postgres itself; use another", quote(s))
	}
}

// minSalt is the least length of an erasure salt. User ids are guessable, so a short salt
// could be found by trying.
const minSalt = 16

func (v validator) history() {
	const path = "history.erasure_salt"
	if salt := v.c.History.ErasureSalt; salt != "" && len(salt) < minSalt {
		v.problem(path, "it is shorter than %d characters; make one with: openssl rand -hex 32", minSalt)
	}
}

func (v validator) listen() {
	const path = "http.listen"
	s := v.c.HTTP.Listen
	host, ok := v.address(path, s, "127.0.0.1:9464")
	if !ok || loopback(host) || v.c.HTTP.Token != "" {
		return
	}
	if v.c.HTTP.Pprof {
		v.problem("http.pprof", "profiles of a daemon that listens to other machines (%s) take a token: give token_file or token in [http], or listen on 127.0.0.1", s)
		return
	}
	v.c.Warnings = append(v.c.Warnings, fmt.Sprintf(
		"http.listen (%s) is reached from other machines, and without http.token everybody there reads the metrics", s))
}

// web checks that pages beyond loopback require a token.
func (v validator) web() {
	const path = "web.listen"
	s := v.c.Web.Listen
	host, ok := v.address(path, s, "127.0.0.1:9465")
	if !ok {
		return
	}
	if s == v.c.HTTP.Listen && !strings.HasSuffix(s, ":0") {
		v.problem(path, "%s is http.listen too: pages and metrics have servers of their own; use another port", s)
		return
	}
	if !loopback(host) && v.c.Web.Token == "" && v.well("web.token", "web.token_file") {
		v.problem(path, `%s is reached from other machines, so the pages need a password: give token_file in [web] (a file made with: openssl rand -hex 24), or listen on 127.0.0.1 behind a proxy with a login`, s)
	}
}

// address returns the host of a setting "host:port", and reports whether it is set and
// valid.
func (v validator) address(path, s, example string) (host string, ok bool) {
	if s == "" {
		return "", false
	}
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		v.problem(path, `%s is no address (want "host:port", such as "%s", or "" for none)`, quote(s), example)
		return "", false
	}
	return host, true
}

// hooks checks the receiver of hooks, and warns of one whose hooks others can read or
// that refuses all.
func (v validator) hooks() {
	h := &v.c.Hooks
	v.certificate("hooks.tls_cert", "hooks.tls_key", &h.TLSCert, &h.TLSKey)
	host, ok := v.address("hooks.listen", h.Listen, "0.0.0.0:9466")
	if !ok {
		return
	}
	if !loopback(host) && h.TLSCert == "" {
		v.c.Warnings = append(v.c.Warnings, fmt.Sprintf(
			"hooks.listen (%s) is reached from other machines without TLS: user ids, and OpenIM's hook_secret, can be read on the way; set tls_cert and tls_key, or keep to a private network", h.Listen))
	}
	receives := func(app App) bool {
		s, ok := app.section()
		return ok && s.receivesHooks()
	}
	if !slices.ContainsFunc(v.c.Apps, receives) {
		v.c.Warnings = append(v.c.Warnings, fmt.Sprintf("hooks.listen (%s) is set, but no app has a hook_token_file or hook_secret_file: all hooks are refused", h.Listen))
	}
}

// certificate checks the files of a certificate and its key, of which there are both or
// neither.
func (v validator) certificate(certPath, keyPath string, cert, key *string) {
	if !v.well(certPath, keyPath) {
		return
	}
	v.relative(certPath, cert)
	v.relative(keyPath, key)
	switch {
	case *cert == "" && *key == "":
	case *key == "":
		v.problem(keyPath, "is missing: tls_cert needs tls_key")
	case *cert == "":
		v.problem(certPath, "is missing: tls_key needs tls_cert")
	default:
		if _, err := tls.LoadX509KeyPair(*cert, *key); err != nil {
			v.problem(certPath, "cannot be used with tls_key: %v", err)
		}
	}
}

// namePattern matches names of apps and jobs: short enough for a label and simple
// enough for the name of a variable.
var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,40}$`)

// names checks the names in a list.
func (v validator) names(path string, names []string) {
	first := map[string]int{} // by variable name, in which "-" and "_" are the same
	for i, name := range names {
		at := fmt.Sprintf("%s[%d].name", path, i)
		if !v.well(at) {
			continue
		}
		if !namePattern.MatchString(name) {
			v.problem(at, "%s is no name (allowed: at most 41 lower-case letters, digits, - and _, first a letter or digit)", quote(name))
			continue
		}
		env := envName(envPrefix, name)
		before, known := first[env]
		switch {
		case !known:
			first[env] = i
		case names[before] == name:
			v.problem(at, "%s is taken by %s[%d]; names must differ", quote(name), path, before)
		default:
			v.problem(at, "%s and %s, of %s[%d], are the same in the names of environment variables; names must differ in more than - and _",
				quote(name), quote(names[before]), path, before)
		}
	}
}

// sweep checks the relations between sizes and times of a sweep.
func (v validator) sweep() {
	s := v.c.Sweep
	if v.well("sweep.page_users", "sweep.range_users") && s.PageUsers > s.RangeUsers {
		at := "sweep.page_users"
		if !v.isGiven(at) {
			at = "sweep.range_users"
		}
		v.problem(at, "range_users (%d) must not be less than page_users (%d): a range is made of pages", s.RangeUsers, s.PageUsers)
	}
	for i, app := range v.c.Apps {
		section, ok := app.section()
		if !ok {
			continue
		}
		if timeout := section.connection().Timeout; s.StopGrace < timeout {
			v.c.Warnings = append(v.c.Warnings, fmt.Sprintf(
				"sweep.stop_grace (%s) is shorter than apps[%d].%s.timeout (%s): a stop can cut off a call in flight, whose page is then done again",
				s.StopGrace, i, section.provider, timeout))
		}
	}
}
