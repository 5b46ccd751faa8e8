package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
)

func (v validator) apps() {
	if len(v.c.Apps) == 0 {
		v.problem("apps", "is missing: at least one [[apps]] is needed")
	}
	names := make([]string, len(v.c.Apps))
	tenants := map[string]string{}
	for i := range v.c.Apps {
		app := &v.c.Apps[i]
		path := fmt.Sprintf("apps[%d]", i)
		names[i] = app.Name
		v.provider(path, app)
		v.usersTable(path, app)
		for _, s := range app.sections() {
			if s.given {
				s.check(v, path+"."+string(s.provider))
			}
		}
		v.sharedQuota(tenants, app)
	}
	v.names("apps", names)
}

// provider checks that an app has its provider's section and no other.
func (v validator) provider(path string, app *App) {
	if !v.well(path + ".provider") {
		return
	}
	for _, s := range app.sections() {
		at := path + "." + string(s.provider)
		switch mine := app.Provider == s.provider; {
		case mine && !s.given:
			v.problem(at, "is missing: provider %q needs a section [apps.%s]", app.Provider, s.provider)
		case !mine && s.given:
			v.problem(at, "does not belong here: the provider of this app is %q; remove the section or change the provider", app.Provider)
		}
	}
}

// usersTable checks that an app has a users table, its own or the default.
func (v validator) usersTable(path string, app *App) {
	at := "users.table"
	if v.isGiven(path + ".users") {
		at = path + ".users.table"
	}
	if app.Users.Table.IsZero() && v.well("users.table", path+".users.table") {
		v.problem(at, "is missing: name the table that lists the users, such as \"public.users\"")
	}
}

// baseURL checks an API's address and removes trailing slashes. Its problems do not
// repeat the address, which may contain a misplaced password. why is the reason
// against http to other machines, unless allowHTTP.
func (v validator) baseURL(path string, s *string, why string, allowHTTP bool) {
	if !v.well(path) {
		return
	}
	u, err := url.Parse(*s)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		v.problem(path, "is no web address (want https://host or https://host:port, with or without a path)")
	case strings.ContainsAny(*s, "@?#"): // an @ after the host comes from a password that is not encoded
		v.problem(path, "must hold no user, password, query or fragment")
	case u.Hostname() == "":
		v.problem(path, "names no host")
	case !allowHTTP && u.Scheme != "https" && !loopback(u.Hostname()):
		v.problem(path, "must begin with https:// (http only for this machine: localhost, 127.0.0.1): %s", why)
	}
	*s = strings.TrimRight(*s, "/")
}

// caFile checks that a certificate file can be read. A name from the configuration
// file is relative to that file's folder.
func (v validator) caFile(path string, name *string) {
	if *name == "" || !v.well(path) {
		return
	}
	v.relative(path, name)
	if _, err := imclient.ReadCAs(*name); err != nil {
		v.problem(path, "cannot be used: %v", err)
	}
}

// relative resolves the name of a file that the configuration file gives relative to its
// folder.
func (v validator) relative(path string, name *string) {
	if *name != "" && v.at[path].env == "" && !filepath.IsAbs(*name) {
		*name = filepath.Join(v.dir, *name)
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sharedQuota warns of two apps that are one tenant: the provider counts their calls
// together, but each keeps only to its own rates.
func (v validator) sharedQuota(names map[string]string, app *App) {
	section, ok := app.section()
	if !ok {
		return // already reported
	}
	tenant := section.tenant()
	switch first, known := names[tenant]; {
	case tenant == "" || tenant == "0": // already reported
	case !known:
		names[tenant] = app.Name
	default:
		v.c.Warnings = append(v.c.Warnings, fmt.Sprintf("apps %q and %q %s: their rates together must stay below it", first, app.Name, section.sharing()))
	}
}

// completeUsers copies settings from [users] to apps that omit them. It precedes all
// checks, which apply to the result.
func (v validator) completeUsers() {
	common := v.c.Users
	for i := range v.c.Apps {
		own := &v.c.Apps[i].Users
		inherits := func(key string) bool { return !v.isGiven(fmt.Sprintf("apps[%d].users.%s", i, key)) }
		if inherits("table") {
			own.Table = common.Table
		}
		if inherits("key_column") {
			own.KeyColumn = common.KeyColumn
		}
		if inherits("user_id") {
			own.UserID = common.UserID
		}
		if inherits("where") {
			own.Where = common.Where
		}
		if inherits("url") && inherits("url_file") {
			own.URL = common.URL
		}
		own.defaultUserID()
	}
	v.c.Users.defaultUserID()
}

func (u *Users) defaultUserID() {
	if strings.TrimSpace(u.UserID) == "" {
		u.UserID = pgx.Identifier{string(u.KeyColumn)}.Sanitize()
	}
}
