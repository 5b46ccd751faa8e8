// Package config reads syncer's configuration: a TOML file, overridden setting by
// setting from the environment, into one typed and validated Config. It is strict and
// reports all problems at once, each with its file and line or environment variable,
// its key and what is allowed. cmd/syncer passes the values on; no other package
// imports this one.
//
// config.example.toml explains the keys to operators. The tags of the structs below
// are the single source of keys, defaults and bounds:
//
//	toml     the key; ",file" adds <key>_file, a file that contains the value;
//	         ",noenv" means that the environment cannot set it
//	default  the value if the key is not given; without a default it is required.
//	         A text may be empty only if its default is, or with this tag:
//	empty    "" is a value
//	min, max the bounds, inclusive
//	allowed  the only values, separated by spaces
package config

import (
	"time"

	"syncer/imclient"
)

// Config is a complete, valid configuration. Load returns it.
type Config struct {
	Database Database `toml:"database"`
	Log      Log      `toml:"log"`
	HTTP     HTTP     `toml:"http"`
	Hooks    Hooks    `toml:"hooks"`
	// Users is the default source of users. Code reads Apps[i].Users, which is
	// complete.
	Users   Users   `toml:"users"`
	Apps    []App   `toml:"apps"` // at least one
	Jobs    []Job   `toml:"jobs"`
	Sweep   Sweep   `toml:"sweep"`
	History History `toml:"history"`
	Report  Report  `toml:"report"`
	Web     Web     `toml:"web"`
	Traces  Traces  `toml:"traces"`

	// Warnings are things that work but need attention, such as a secret in a
	// world-readable file. They contain no secret.
	Warnings []string
}

// Database is where syncer stores its data.
type Database struct {
	// URL is a Postgres connection URL, or keywords and values ("host=… user=…").
	URL DatabaseURL `toml:"url,file"`
	// Schema holds all tables, River's too: lower case, no quoting needed.
	Schema string `toml:"schema" default:"syncer"`
	// MaxConns bounds one process's connections. The minimum is two: one listens for
	// work while the other does it.
	MaxConns int `toml:"max_conns" default:"10" min:"2" max:"1000"`
	// PollOnly means that URL is a pooler in transaction mode, which delivers no
	// notifications.
	PollOnly bool `toml:"poll_only" default:"false"`
}

// Log is what is logged to stderr, and how.
type Log struct {
	Level string `toml:"level" default:"info" allowed:"debug info warn error"`
	// Format is that of all of stderr. Auto is JSON for a command that runs until it is
	// stopped (run, web), if stderr is not a terminal, else console.
	Format string `toml:"format" default:"auto" allowed:"auto json console"`
}

// HTTP is the admin server.
type HTTP struct {
	// Listen is host:port; "" turns the server off.
	Listen string `toml:"listen" default:"127.0.0.1:9464" empty:"off"`
	// Token is required for everything except liveness and readiness; "" requires
	// none.
	Token Secret `toml:"token,file" default:""`
	// Pprof also serves Go profiles. They reveal what the program does and cost a
	// little while one is taken.
	Pprof bool `toml:"pprof" default:"false"`
}

// Hooks is the receiver of the hooks that providers send, and what they may cost.
type Hooks struct {
	// Listen is host:port; "" turns hooks off.
	Listen string `toml:"listen" default:""`
	// TLSCert and TLSKey are PEM files; both or neither. Names from the file are relative
	// to the file's folder.
	TLSCert string `toml:"tls_cert" default:""`
	TLSKey  string `toml:"tls_key" default:""`
	// Share is the share of an app's presence rate that hints may use while a sweep runs.
	Share float64 `toml:"share" default:"0.2" min:"0.01" max:"1"`
	// MaxPending is the number of users of an app that may wait to be asked about in one
	// process. More are dropped; the sweep finds them.
	MaxPending int `toml:"max_pending" default:"100000" min:"100" max:"10000000"`
}

// Users describes a table that lists users. It is never written to.
type Users struct {
	// Table is the zero Table only in Config.Users, when each app has its own.
	Table Table `toml:"table" default:""`
	// KeyColumn is the column used for keyset pagination: unique, indexed and
	// orderable.
	KeyColumn Identifier `toml:"key_column" default:"id"`
	// UserID is the SQL expression that returns the IM user id; the quoted key column
	// by default.
	UserID string `toml:"user_id" default:""`
	// Where is an SQL condition; "" takes all rows.
	Where string `toml:"where" default:""`
	// URL is the database that holds the table; "" is Database.URL.
	URL DatabaseURL `toml:"url,file" default:""`
}

// Job is a scheduled kind of sweep.
type Job struct {
	Name string        `toml:"name,noenv"`
	Kind imclient.Kind `toml:"kind" allowed:"presence accounts"`
	// App is the name of one app; "" is every app.
	App string `toml:"app" default:""`
	// Schedule is five cron fields, a descriptor such as @daily, or "@every 90s". A
	// leading CRON_TZ= is moved to Timezone.
	Schedule string `toml:"schedule"`
	// Timezone is the zone in which the schedule is evaluated.
	Timezone *time.Location `toml:"timezone" default:"UTC"`
	// CatchUp runs the job once at start if ticks were missed while no process ran.
	CatchUp bool `toml:"catch_up" default:"true"`

	// Interval is the shortest time between two ticks.
	Interval time.Duration
	// MaxGap is the longest time between two complete runs that counts as observed.
	// It is Sweep.MaxGap if that is set and this is a presence job, else three
	// intervals.
	MaxGap time.Duration
}

// Sweep configures how runs are divided and executed.
type Sweep struct {
	// RangeUsers is the unit of distributed work and of retry.
	RangeUsers int `toml:"range_users" default:"50000" min:"1" max:"10000000"`
	// PageUsers is the number of users that are read, queried and written in one
	// transaction; at most RangeUsers.
	PageUsers int `toml:"page_users" default:"5000" min:"1" max:"100000"`
	// Workers is the number of ranges of one app and kind that a process works on at
	// once.
	Workers int `toml:"workers" default:"4" min:"1" max:"64"`
	// RescueAfter is when another worker takes over a range whose worker shows no
	// activity.
	RescueAfter time.Duration `toml:"rescue_after" default:"60s" min:"5s" max:"10m"`
	// Outage is how long a run waits for an API that does not respond before it
	// fails.
	Outage time.Duration `toml:"outage" default:"5m" min:"10s" max:"24h"`
	// StopGrace is how long a stop waits for pages in flight.
	StopGrace time.Duration `toml:"stop_grace" default:"20s" min:"0s" max:"1h"`
	// MaxGap is 0 if not given. Use Job.MaxGap, which is always set.
	MaxGap time.Duration `toml:"max_gap" default:"" min:"1s" max:"365d"`
	// CollapseRatio marks a page as suspect if more than this share of its, or of one
	// call's, online users went offline at once. A ratio of 1 disables the check.
	CollapseRatio float64 `toml:"collapse_ratio" default:"0.5" min:"0" max:"1"`
	// CollapseDelay is the wait of a suspect page before each recheck.
	CollapseDelay time.Duration `toml:"collapse_delay" default:"20s" min:"100ms" max:"10m"`
	// RemovalRatio and RemovalMin hold back removals: a run that would remove more
	// than this share of at least RemovalMin known users removes none until the
	// operator confirms it. A ratio of 1 disables the check.
	RemovalRatio float64 `toml:"removal_ratio" default:"0.5" min:"0" max:"1"`
	RemovalMin   int     `toml:"removal_min" default:"1000" min:"1" max:"1000000000"`
}

// History configures the storage of transitions.
type History struct {
	// Partition is the period of one partition.
	Partition string `toml:"partition" default:"month" allowed:"month week day"`
	// Retention is how long transitions are kept; 0 is unlimited.
	Retention time.Duration `toml:"retention" default:"" min:"24h" max:"36500d"`
	// Archive is the folder to which closed months are written; "" archives nothing. With
	// it retention drops only what is archived.
	Archive string `toml:"archive" default:""`
	// ErasureSalt keys the hashes by which syncer forget records erased users; "" if none
	// is ever erased.
	ErasureSalt Secret `toml:"erasure_salt,file" default:""`
}

// Report configures reports.
type Report struct {
	// Timezone is the zone whose days are rolled up. Reports in another zone are
	// computed from the history.
	Timezone *time.Location `toml:"timezone" default:"UTC"`
}

// Web configures the pages and the read API.
type Web struct {
	// Listen is host:port; "" turns the server off.
	Listen string `toml:"listen" default:""`
	// Token is the password of Basic authentication; "" requires none. It is required
	// beyond loopback.
	Token Secret `toml:"token,file" default:""`
	// UserPages serves pages and answers about single users.
	UserPages bool `toml:"user_pages" default:"false"`
	// DatabaseURL is a connection that only reads, for example to a replica; "" is
	// Database.URL.
	DatabaseURL DatabaseURL `toml:"database_url,file" default:""`
}

// Traces configures where traces of runs are sent.
type Traces struct {
	// Endpoint is a server of OTLP over HTTP, with a path once loaded; "" sends none.
	Endpoint string `toml:"endpoint" default:""`
	// AllowHTTP permits http to other machines.
	AllowHTTP bool `toml:"allow_http" default:"false"`
	// CAFile is as in Tencent.
	CAFile string `toml:"ca_file" default:""`
	// Proxy is as in App.
	Proxy ProxyURL `toml:"proxy,file" default:""`
	// Headers are sent with each upload, one "Name: value" a line.
	Headers Secret `toml:"headers,file" default:""`
	// Sample is the share of runs that are traced; each is traced as a whole or not
	// at all.
	Sample float64 `toml:"sample" default:"1" min:"0" max:"1"`
}
