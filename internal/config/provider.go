package config

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"syncer/imclient"
)

// App is one tenant of an IM provider. Only the section of its provider is not nil.
type App struct {
	Name     string            `toml:"name,noenv"`
	Provider imclient.Provider `toml:"provider" allowed:"tencent openim"`
	// Proxy carries all calls to the provider; "" is none. The environment's
	// HTTP_PROXY and HTTPS_PROXY do not count.
	Proxy   ProxyURL `toml:"proxy,file" default:""`
	Tencent *Tencent `toml:"tencent"`
	OpenIM  *OpenIM  `toml:"openim"`
	// Users is the app's source of users. A key that [apps.users] omits has the value
	// of [users].
	Users Users `toml:"users"`
}

// Connection holds what the sections of all providers have: how to reach the API, and the
// calls a second of all instances together.
type Connection struct {
	// BaseURL is the API's address. "" if the section names a region instead.
	BaseURL      string
	AllowHTTP    bool
	CAFile       string
	Timeout      time.Duration
	PresenceRate int
	AccountsRate int
}

// Rate returns the calls a second of the API of a kind.
func (c Connection) Rate(kind imclient.Kind) int {
	if kind == imclient.KindPresence {
		return c.PresenceRate
	}
	return c.AccountsRate
}

// Connection returns how to reach the provider of an app that Load has checked.
func (a App) Connection() Connection { return a.mustSection().connection() }

// Tenant returns the identity of an app at its provider: the SDKAppID, or the
// normalised address of an OpenIM deployment. Two spellings of one address are the
// same tenant. The result contains no user, password or query.
func (a App) Tenant() string { return a.mustSection().tenant() }

// WithRates returns the app with the rates of another one of the same provider.
func (a App) WithRates(of App) App {
	s, _ := a.section()
	s.set(s.withRates(of.Connection()))
	return a
}

// section is an app's section of one provider.
type section interface {
	// check reports the problems of the section at path, and normalises its settings.
	check(v validator, path string)
	connection() Connection
	tenant() string
	// sharing describes what two apps of one tenant share, for a warning.
	sharing() string
	// receivesHooks reports whether the section has what makes hooks trusted.
	receivesHooks() bool
	// withRates returns a copy with the rates of c.
	withRates(c Connection) section
}

// providerSection is an app's section of one provider, and where it is in the App.
type providerSection struct {
	section
	provider imclient.Provider
	given    bool
	set      func(section)
}

// sections lists the sections of all providers, given or not. It is the table of
// providers for this package.
func (a *App) sections() []providerSection {
	return []providerSection{
		{a.Tencent, imclient.ProviderTencent, a.Tencent != nil, func(s section) { a.Tencent = s.(*Tencent) }},
		{a.OpenIM, imclient.ProviderOpenIM, a.OpenIM != nil, func(s section) { a.OpenIM = s.(*OpenIM) }},
	}
}

// section returns the app's section. It reports false if the app has none or several.
func (a *App) section() (found providerSection, ok bool) {
	for _, s := range a.sections() {
		if s.given {
			found, ok = s, !found.given
		}
	}
	return found, ok
}

// mustSection is section for an app that Load has checked.
func (a App) mustSection() section {
	s, ok := a.section()
	if !ok {
		panic("app " + a.Name + " does not have exactly one provider")
	}
	return s.section
}

// Tencent configures a Tencent Chat app. The documented limits are 200 calls a second
// ("Querying Account Online Status") and 100 ("account_check").
type Tencent struct {
	SDKAppID int64 `toml:"sdk_app_id" min:"1" max:"4294967295"`
	// Identifier is an administrator of the app.
	Identifier string `toml:"identifier" default:"administrator"`
	SecretKey  Secret `toml:"secret_key,file"`
	// Exactly one of Region and BaseURL is set. The region was chosen when the app
	// was created; hosts of other regions do not know it.
	Region string `toml:"region" default:"" allowed:"china frankfurt jakarta seoul silicon_valley singapore tokyo"`
	// BaseURL has no trailing slash. It is https except for this machine.
	BaseURL string `toml:"base_url" default:""`
	// CAFile contains the only trusted certificate authorities; "" means the
	// system's. A name from the file is relative to the file's folder.
	CAFile string `toml:"ca_file" default:""`
	// PresenceAPI is the newer or the older name of the same API.
	PresenceAPI string `toml:"presence_api" default:"query_online_status" allowed:"query_online_status querystate"`
	// Detail also requests platforms.
	Detail bool `toml:"detail" default:"true"`
	// Rates are calls a second of all instances together. They may exceed the
	// documented limits because the provider's console can raise those.
	PresenceRate int `toml:"presence_rate" default:"180" min:"1" max:"10000"`
	AccountsRate int `toml:"accounts_rate" default:"90" min:"1" max:"10000"`
	// Timeout bounds one call. Tencent gives up after 3 s; a client that gives up
	// earlier never receives the reason.
	Timeout time.Duration `toml:"timeout" default:"8s" min:"4s" max:"60s"`
	// HookToken is the token of the console's callback authentication; without one, hooks
	// are refused.
	HookToken Secret `toml:"hook_token,file" default:""`
}

func (t *Tencent) check(v validator, path string) {
	region, baseURL := path+".region", path+".base_url"
	if v.well(region, baseURL) && (t.Region == "") == (t.BaseURL == "") {
		if t.Region == "" {
			v.problem(region, "is missing: give region, or base_url for another address")
		} else {
			v.problem(baseURL, "both region and base_url are given; keep one")
		}
	}
	if t.BaseURL != "" {
		v.baseURL(baseURL, &t.BaseURL, "requests carry a signature", false)
	}
	v.caFile(path+".ca_file", &t.CAFile)
	v.documentedRate(path+".presence_rate", t.PresenceRate, 200)
	v.documentedRate(path+".accounts_rate", t.AccountsRate, 100)
	const maxIdentifier = 32 // bytes; document "Use limits"
	if id := t.Identifier; len(id) > maxIdentifier || strings.ContainsFunc(id, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		v.problem(path+".identifier", "must be an account of the app: at most %d printable ASCII characters", maxIdentifier)
	}
	const maxToken = 128 // characters; document "Webhook Configuration"
	if len(t.HookToken) > maxToken {
		v.problem(path+".hook_token", "is longer than the %d characters that the console takes", maxToken)
	}
}

func (t *Tencent) receivesHooks() bool { return t.HookToken != "" }

// documentedRate warns of a rate above Tencent's documented limit. It is no error because
// the provider's console can raise the limit.
func (v validator) documentedRate(path string, rate, limit int) {
	if v.well(path) && rate > limit {
		v.c.Warnings = append(v.c.Warnings, fmt.Sprintf(
			"%s (%d) is above the documented limit of %d calls per second: unless the console has raised it, Tencent refuses calls and syncer slows down", path, rate, limit))
	}
}

func (t *Tencent) connection() Connection {
	return Connection{BaseURL: t.BaseURL, CAFile: t.CAFile, Timeout: t.Timeout, PresenceRate: t.PresenceRate, AccountsRate: t.AccountsRate}
}

func (t *Tencent) tenant() string { return strconv.FormatInt(t.SDKAppID, 10) }

func (t *Tencent) sharing() string {
	return "have the same sdk_app_id " + t.tenant() + " and share its limit"
}

func (t *Tencent) withRates(c Connection) section {
	changed := *t
	changed.PresenceRate, changed.AccountsRate = c.PresenceRate, c.AccountsRate
	return &changed
}

// Format writes the section with its secret masked, for every verb. For a verb that
// does not fit a pointer, fmt would print the struct without calling methods.
func (t Tencent) Format(f fmt.State, _ rune) {
	type plain Tencent
	_, _ = fmt.Fprintf(f, "%+v", plain(t))
}

// OpenIM configures an OpenIM server, v3.0 or newer.
type OpenIM struct {
	// BaseURL has no trailing slash. It is https except for this machine or with
	// AllowHTTP.
	BaseURL string `toml:"base_url"`
	// AllowHTTP permits http to other machines, as within one private network. Secret
	// and tokens are then readable on the way.
	AllowHTTP bool `toml:"allow_http" default:"false"`
	// CAFile is as in Tencent.
	CAFile      string `toml:"ca_file" default:""`
	AdminUserID string `toml:"admin_user_id" default:"imAdmin"`
	Secret      Secret `toml:"secret,file"`
	// Rates are calls a second of all instances together.
	PresenceRate int `toml:"presence_rate" default:"50" min:"1" max:"10000"`
	AccountsRate int `toml:"accounts_rate" default:"50" min:"1" max:"10000"`
	// Timeout bounds one call. The server has no deadline of its own.
	Timeout time.Duration `toml:"timeout" default:"8s" min:"1s" max:"60s"`
	// HookSecret is the last part of the path of the URL of webhooks, which need no
	// escaping in a URL; without one, hooks are refused.
	HookSecret Secret `toml:"hook_secret,file" default:""`
}

func (o *OpenIM) check(v validator, path string) {
	v.baseURL(path+".base_url", &o.BaseURL, "the secret and tokens could be read on the way; allow_http = true if that network is yours", o.AllowHTTP)
	v.caFile(path+".ca_file", &o.CAFile)
	if o.HookSecret != "" && !hookSecretPattern.MatchString(o.HookSecret.Reveal()) {
		v.problem(path+".hook_secret", "must be 16 to 128 letters, digits, - and _: it stands in a URL, and is all that protects the receiver (openssl rand -hex 16 prints one)")
	}
}

// hookSecretPattern matches what can be part of a path as it is, and is hard to guess.
var hookSecretPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{16,128}$`)

func (o *OpenIM) receivesHooks() bool { return o.HookSecret != "" }

func (o *OpenIM) connection() Connection {
	return Connection{BaseURL: o.BaseURL, AllowHTTP: o.AllowHTTP, CAFile: o.CAFile, Timeout: o.Timeout,
		PresenceRate: o.PresenceRate, AccountsRate: o.AccountsRate}
}

func (o *OpenIM) tenant() string { return normalised(o.BaseURL) }

func (o *OpenIM) sharing() string {
	return "are the same OpenIM deployment, " + o.tenant() + ", and share what it bears"
}

func (o *OpenIM) withRates(c Connection) section {
	changed := *o
	changed.PresenceRate, changed.AccountsRate = c.PresenceRate, c.AccountsRate
	return &changed
}

// Format is as in Tencent.
func (o OpenIM) Format(f fmt.State, _ rune) {
	type plain OpenIM
	_, _ = fmt.Fprintf(f, "%+v", plain(o))
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
