// Package config reads syncer's configuration: a TOML file, overridden setting
// by setting from the environment, into one typed and validated Config. It is
// strict, and reports every problem at once, each with its file and line or
// its environment variable, its key and what is allowed.
//
// What each key means to a user stands in config.example.toml. The tags of the
// structs below are the single source of keys, defaults and bounds:
//
//	toml     the key; ",file" adds <key>_file, a file that holds the value;
//	         ",noenv" keeps the environment from setting it
//	default  used when the key is not given; without one the key is required.
//	         A text may be empty only if its default is, or with this tag:
//	empty    "" is a value
//	min, max the bounds, both allowed values themselves
//	allowed  the only values, separated by spaces
package config

import (
	"time"

	"syncer/imclient"
)

// Config is a whole, valid configuration. Load makes it.
type Config struct {
	Database Database `toml:"database"`
	Log      Log      `toml:"log"`
	HTTP     HTTP     `toml:"http"`
	// Users is the default source of users. Apps[i].Users is what to read for
	// an app: it is complete already.
	Users   Users   `toml:"users"`
	Apps    []App   `toml:"apps"` // at least one
	Jobs    []Job   `toml:"jobs"`
	Sweep   Sweep   `toml:"sweep"`
	History History `toml:"history"`
	Report  Report  `toml:"report"`
	Traces  Traces  `toml:"traces"`

	// Warnings are things that work but that somebody should look at, such as
	// secrets in a file that everybody can read. They hold no secret.
	Warnings []string
}

// Database is where syncer keeps what it learns.
type Database struct {
	// URL is a Postgres connection URL, or keywords and values ("host=… user=…").
	URL DatabaseURL `toml:"url,file"`
	// Schema holds all tables, River's too: lower case, no quoting needed.
	Schema string `toml:"schema" default:"syncer"`
	// MaxConns bounds one process's connections. Two is the least: one listens
	// for work while the other does it.
	MaxConns int `toml:"max_conns" default:"10" min:"2" max:"1000"`
	// PollOnly: URL is that of a pooler in transaction mode, through which nobody is
	// told of new work.
	PollOnly bool `toml:"poll_only" default:"false"`
}

// Log says what is logged to stderr and how.
type Log struct {
	Level string `toml:"level" default:"info" allowed:"debug info warn error"`
	// Format auto is console on a terminal and JSON elsewhere.
	Format string `toml:"format" default:"auto" allowed:"auto json console"`
}

// HTTP is the admin server.
type HTTP struct {
	// Listen is host:port; "" turns the server off.
	Listen string `toml:"listen" default:"127.0.0.1:9464" empty:"off"`
	// Token is asked of whoever wants more than to know whether the daemon is
	// alive and ready; "" asks for none.
	Token Secret `toml:"token,file" default:""`
	// Pprof serves Go's profiles too. They show what the program is doing and
	// cost a little while one is taken.
	Pprof bool `toml:"pprof" default:"false"`
}

// Users describes a table that lists users. It is never written to.
type Users struct {
	// Table is the zero Table only in Config.Users, when each app has its own.
	Table Table `toml:"table" default:""`
	// KeyColumn is unique, indexed and orderable: pages are cut by it.
	KeyColumn Identifier `toml:"key_column" default:"id"`
	// UserID is the SQL expression that yields the IM user id; the key column,
	// quoted, when not given.
	UserID string `toml:"user_id" default:""`
	// Where is an SQL condition; "" takes all rows.
	Where string `toml:"where" default:""`
	// URL is the database that holds the table; "" is Database.URL.
	URL DatabaseURL `toml:"url,file" default:""`
}

// App is one tenant of an instant-messaging backend. Exactly the section of
// its provider is not nil.
type App struct {
	Name     string            `toml:"name,noenv"`
	Provider imclient.Provider `toml:"provider" allowed:"tencent openim"`
	// Proxy carries all calls to the provider; "" is none. The environment's
	// HTTP_PROXY and HTTPS_PROXY do not count.
	Proxy   ProxyURL `toml:"proxy,file" default:""`
	Tencent *Tencent `toml:"tencent"`
	OpenIM  *OpenIM  `toml:"openim"`
	// Users is the app's source of users. A key that [apps.users] does not give
	// has the value from [users].
	Users Users `toml:"users"`
}

// Tencent is how to reach a Tencent Chat app. The documented limits are 200 calls
// a second ("Querying Account Online Status") and 100 ("account_check").
type Tencent struct {
	SDKAppID int64 `toml:"sdk_app_id" min:"1" max:"4294967295"`
	// Identifier is an administrator of the app.
	Identifier string `toml:"identifier" default:"administrator"`
	SecretKey  Secret `toml:"secret_key,file"`
	// Region and BaseURL: exactly one is given. The app's region was chosen
	// when it was created; another one's host does not know it.
	Region string `toml:"region" default:"" allowed:"china frankfurt jakarta seoul silicon_valley singapore tokyo"`
	// BaseURL has no trailing slash; https unless it is this machine.
	BaseURL string `toml:"base_url" default:""`
	// CAFile holds the certificates of the only CAs that are believed; "": the
	// system's. Relative to the configuration file's folder when given there.
	CAFile string `toml:"ca_file" default:""`
	// PresenceAPI is the newer or the older name of the same call.
	PresenceAPI string `toml:"presence_api" default:"query_online_status" allowed:"query_online_status querystate"`
	// Detail asks for platforms too.
	Detail bool `toml:"detail" default:"true"`
	// Rates are calls a second of all instances together. The console can raise
	// the documented limits, so that they are no bound here.
	PresenceRate int `toml:"presence_rate" default:"180" min:"1" max:"10000"`
	AccountsRate int `toml:"accounts_rate" default:"90" min:"1" max:"10000"`
	// UserSigTTL: below a day Tencent answers 70001 (document "Error Codes");
	// ten years is the most it signs for.
	UserSigTTL time.Duration `toml:"usersig_ttl" default:"168h" min:"24h" max:"3650d"`
	// Timeout of one call. The backend gives up after 3 s; a client that gives
	// up no later never hears why.
	Timeout time.Duration `toml:"timeout" default:"8s" min:"4s" max:"60s"`
}

// OpenIM is how to reach an OpenIM server, v3.0 or newer.
type OpenIM struct {
	// BaseURL has no trailing slash; https unless it is this machine or AllowHTTP.
	BaseURL string `toml:"base_url"`
	// AllowHTTP lets BaseURL be http to another machine: deployments are mostly
	// inside one network. Secret and tokens can be read on the way then.
	AllowHTTP bool `toml:"allow_http" default:"false"`
	// CAFile is as with Tencent.
	CAFile      string `toml:"ca_file" default:""`
	AdminUserID string `toml:"admin_user_id" default:"imAdmin"`
	Secret      Secret `toml:"secret,file"`
	// Batches are ids per call. The server has no limit of its own, but a
	// message too large for its insides makes everybody look offline.
	PresenceBatch int `toml:"presence_batch" default:"500" min:"1" max:"1000"`
	AccountsBatch int `toml:"accounts_batch" default:"500" min:"1" max:"1000"`
	// Rates are calls a second of all instances together.
	PresenceRate int `toml:"presence_rate" default:"50" min:"1" max:"10000"`
	AccountsRate int `toml:"accounts_rate" default:"50" min:"1" max:"10000"`
	// Timeout of one call. The server sets no deadline of its own.
	Timeout time.Duration `toml:"timeout" default:"8s" min:"1s" max:"60s"`
}

// Job is a kind of sweep on a schedule.
type Job struct {
	Name string        `toml:"name,noenv"`
	Kind imclient.Kind `toml:"kind" allowed:"presence accounts"`
	// App is the name of one app; "" is every app.
	App string `toml:"app" default:""`
	// Schedule is five cron fields, a descriptor such as @daily, or "@every 90s".
	// A CRON_TZ= in front is taken off and is the Timezone.
	Schedule string `toml:"schedule"`
	// Timezone is in what the schedule is meant.
	Timezone *time.Location `toml:"timezone" default:"UTC"`
	// CatchUp runs once at start for ticks that fell while nothing was up.
	CatchUp bool `toml:"catch_up" default:"true"`

	// Interval is the shortest time between two ticks.
	Interval time.Duration
	// MaxGap is how far apart two complete runs may be before the time between
	// them counts as not observed: Sweep.MaxGap if this is a presence job and it
	// is set, else three intervals.
	MaxGap time.Duration
}

// Sweep is how the work of a run is cut and spread.
type Sweep struct {
	// RangeUsers is the unit of distributed work and of retry.
	RangeUsers int `toml:"range_users" default:"50000" min:"1" max:"10000000"`
	// PageUsers are read, asked about and written in one transaction; never more
	// than RangeUsers.
	PageUsers int `toml:"page_users" default:"5000" min:"1" max:"100000"`
	// Workers are the ranges of one app and kind that one process works on at once.
	Workers int `toml:"workers" default:"4" min:"1" max:"64"`
	// RescueAfter is when a range whose worker gives no sign of life is taken over.
	RescueAfter time.Duration `toml:"rescue_after" default:"60s" min:"5s" max:"10m"`
	// Outage is how long a run waits for an API that answers nobody before it fails.
	Outage time.Duration `toml:"outage" default:"5m" min:"10s" max:"24h"`
	// StopGrace is how long a stop waits for pages in flight.
	StopGrace time.Duration `toml:"stop_grace" default:"20s" min:"0s" max:"1h"`
	// MaxGap is 0 when not given. Use Job.MaxGap, which is always set.
	MaxGap time.Duration `toml:"max_gap" default:"" min:"1s" max:"365d"`
	// CollapseRatio: a page is suspect when more than this share of the online users
	// of the page or of a call, and at least CollapseMin, went offline at once. 1
	// switches that off.
	CollapseRatio float64 `toml:"collapse_ratio" default:"0.5" min:"0" max:"1"`
	CollapseMin   int     `toml:"collapse_min" default:"50" min:"1" max:"1000000"`
	// CollapseDelay is how long a suspect page waits for each recheck.
	CollapseDelay time.Duration `toml:"collapse_delay" default:"20s" min:"100ms" max:"10m"`
	// RemovalRatio: a run that would remove more than this share of the known
	// users, of whom there are at least RemovalMin, removes none until the operator
	// confirms it. 1 switches that off.
	RemovalRatio float64 `toml:"removal_ratio" default:"0.5" min:"0" max:"1"`
	RemovalMin   int     `toml:"removal_min" default:"1000" min:"1" max:"1000000000"`
}

// History is how transitions are kept.
type History struct {
	// Partition is the period of one partition.
	Partition string `toml:"partition" default:"month" allowed:"month week day"`
	// Retention is how long transitions are kept; 0 is for ever.
	Retention time.Duration `toml:"retention" default:"" min:"24h" max:"36500d"`
}

// Report is what reports go by.
type Report struct {
	// Timezone is whose days are rolled up; reports on days of another one are
	// computed from the history.
	Timezone *time.Location `toml:"timezone" default:"UTC"`
}

// Traces is where traces of the runs go.
type Traces struct {
	// Endpoint takes OTLP over HTTP. Once loaded it has a path; "" is off.
	Endpoint string `toml:"endpoint" default:""`
	// AllowHTTP lets Endpoint be http to another machine.
	AllowHTTP bool `toml:"allow_http" default:"false"`
	// CAFile is as with Tencent.
	CAFile string `toml:"ca_file" default:""`
	// Proxy is as with an app.
	Proxy ProxyURL `toml:"proxy,file" default:""`
	// Headers go with all that is sent there, one "Name: value" a line.
	Headers Secret `toml:"headers,file" default:""`
	// Sample is the share of the runs that are traced, each as a whole.
	Sample float64 `toml:"sample" default:"1" min:"0" max:"1"`
}
