package config

import (
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// Tenant returns the identity of an app at its provider: the SDKAppID, or the
// normalised address of an OpenIM deployment. Two spellings of one address are the
// same tenant. The result contains no user, password or query.
func (a App) Tenant() string {
	if a.Tencent != nil {
		return strconv.FormatInt(a.Tencent.SDKAppID, 10)
	}
	return normalised(a.OpenIM.BaseURL)
}

// normalised returns a web address with scheme and host in lower case, without
// default port, trailing slash or trailing dot of the host. Load has checked that it
// parses.
func normalised(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	defaults := map[string]string{"http": "80", "https": "443"}
	switch port := u.Port(); {
	case port != "" && port != defaults[u.Scheme]:
		host = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	clean := url.URL{Scheme: u.Scheme, Host: host}
	if p := path.Clean("/" + u.Path); p != "/" {
		clean.Path = p
	}
	return clean.String()
}
