package config

import "strings"

// problemCases are wrong configurations, as edits of minimal or whole texts,
// and every line that must be reported of each.
var problemCases = []struct {
	name  string
	edits []string
	text  string
	want  []string
}{
	{name: "nothing at all", text: "\n", want: []string{
		"config.toml: database.url: is missing: give url, url_file or the environment variable SYNCER_DATABASE_URL",
		"config.toml: apps: is missing: at least one [[apps]] is needed",
	}},
	{name: "many at once, in the order of the file", text: `[database]
url = "postgres://syncer@localhost/app"
shema = "x"
max_conns = 1
[users]
table = "a.b.c"
[log]
level = "loud"
[[apps]]
provider = "tencent"
[apps.tencent]
region = "sinagpore"
timeout = "3s"
[sweeep]
workers = 3
`, want: []string{
		`config.toml:3: database.shema: unknown key; did you mean "schema"?`,
		`config.toml:4: database.max_conns: must be between 2 and 1000, is 1`,
		`config.toml:6: users.table: "a.b.c" is no table's name (want table or schema.table; unusual names quoted, as in public."Users")`,
		`config.toml:8: log.level: unknown level "loud" (allowed: debug, info, warn, error)`,
		`config.toml:9: apps[0].name: is missing`,
		`config.toml:11: apps[0].tencent.sdk_app_id: is missing`,
		`config.toml:11: apps[0].tencent.secret_key: is missing: give secret_key or secret_key_file`,
		`config.toml:12: apps[0].tencent.region: unknown region "sinagpore" (allowed: china, frankfurt, jakarta, seoul, silicon_valley, singapore, tokyo)`,
		`config.toml:13: apps[0].tencent.timeout: must be between 4s and 60s, is 3s`,
		`config.toml:14: sweeep: unknown section; did you mean "sweep"?`,
	}},
	{name: "no TOML", edits: []string{`name = "main"`, `naïve = "main" x`}, want: []string{
		"config.toml:8:3: this is not TOML: expected '=' after key"}},
	{name: "text not closed", edits: []string{`secret = "openim-secret"`, `secret = "openim-secret`}, want: []string{
		"config.toml:20:24: this is not TOML: basic strings cannot have new lines"}},
	{name: "given twice", edits: []string{`table = "users"`, "table = \"users\"\ntable = \"x\"\n[database]\n[log]\nlevel.x = 1\nlevel = \"info\"\n[[log]]\n[log.level]"}, want: []string{
		"config.toml:6: users.table: is given twice, first as a string on line 5",
		"config.toml:7: database: is given twice, first as a section on line 1",
		"config.toml:9: log.level: must be a string in quotes, is a section",
		"config.toml:10: log.level: is given twice, first as a section on line 9",
		"config.toml:11: log: is given twice, first as a section on line 8",
		"config.toml:12: log.level: is given twice, first as a section on line 9",
	}},
	{name: "wrong types", edits: []string{
		`table = "users"`, "table = 5\nwhere = true\nuser_id = [\"id\"]\nkey_column = 1979-05-27",
		`sdk_app_id = 1400000000`, `sdk_app_id = "1400000000"`,
		`region = "singapore"`, "region = \"tokyo\"\ndetail = \"yes\"\ntimeout = 8\npresence_rate = 1.5",
		`secret = "openim-secret"`, "secret = 0x17\ntimeout = \"a week\"\n[sweep]\ncollapse_ratio = \"half\"\n[http]\nlisten = 9464\n[history]\nretention = 400",
	}, want: []string{
		`config.toml:5: users.table: must be a string in quotes, is a whole number`,
		`config.toml:6: users.where: must be a string in quotes, is true or false`,
		`config.toml:7: users.user_id: must be a string in quotes, is a list`,
		`config.toml:8: users.key_column: must be a string in quotes, is a date or time`,
		`config.toml:14: apps[0].tencent.sdk_app_id: must be a whole number, is a string`,
		`config.toml:17: apps[0].tencent.detail: must be true or false, is a string`,
		`config.toml:18: apps[0].tencent.timeout: must be a duration in quotes, such as "90s", "8h30m" or "400d", is a whole number`,
		`config.toml:19: apps[0].tencent.presence_rate: must be a whole number, is a number`,
		`config.toml:26: apps[1].openim.secret: must be a string in quotes, is a whole number`,
		`config.toml:27: apps[1].openim.timeout: must be a duration in quotes, such as "90s", "8h30m" or "400d", is "a week"`,
		`config.toml:29: sweep.collapse_ratio: must be a number, is a string`,
		`config.toml:31: http.listen: must be a string in quotes, is a whole number`,
		`config.toml:33: history.retention: must be a duration in quotes, such as "90s", "8h30m" or "400d", is a whole number`,
	}},
	{name: "sections and lists mistaken for each other", text: `database = "postgres://x"
jobs = [1]
[apps]
name = "main"
`, want: []string{
		`config.toml:1: database: must be a section, written [database], is a string`,
		`config.toml:2: jobs: must be written [[jobs]], once for each`,
		`config.toml:3: apps: must be written [[apps]], once for each`,
	}},
	{name: "bounds", edits: []string{
		`sdk_app_id = 1400000000`, "sdk_app_id = 0\npresence_rate = 10_001\naccounts_rate = 0x0",
		`secret = "openim-secret"`, "secret = \"x\"\ntimeout = \"61s\"\n[sweep]\nrescue_after = \"4s\"\n" +
			"stop_grace = \"-1s\"\nworkers = 65\ncollapse_ratio = 1.01\ncollapse_delay = \"99ms\"\nremoval_ratio = -0.1\nremoval_min = 0\nmax_gap = \"0s\"\noutage = \"25h\"\n[history]\nretention = \"23h\"\npartition = \"year\"",
	}, want: []string{
		`config.toml:11: apps[0].tencent.sdk_app_id: must be between 1 and 4294967295, is 0`,
		`config.toml:12: apps[0].tencent.presence_rate: must be between 1 and 10000, is 10_001`,
		`config.toml:13: apps[0].tencent.accounts_rate: must be between 1 and 10000, is 0x0`,
		`config.toml:23: apps[1].openim.timeout: must be between 1s and 60s, is 61s`,
		`config.toml:25: sweep.rescue_after: must be between 5s and 10m, is 4s`,
		`config.toml:26: sweep.stop_grace: must be between 0s and 1h, is -1s`,
		`config.toml:27: sweep.workers: must be between 1 and 64, is 65`,
		`config.toml:28: sweep.collapse_ratio: must be between 0 and 1, is 1.01`,
		`config.toml:29: sweep.collapse_delay: must be between 100ms and 10m, is 99ms`,
		`config.toml:30: sweep.removal_ratio: must be between 0 and 1, is -0.1`,
		`config.toml:31: sweep.removal_min: must be between 1 and 1000000000, is 0`,
		`config.toml:32: sweep.max_gap: must be between 1s and 365d, is 0s`,
		`config.toml:33: sweep.outage: must be between 10s and 24h, is 25h`,
		`config.toml:35: history.retention: must be between 24h and 36500d, is 23h`,
		`config.toml:36: history.partition: unknown partition "year" (allowed: month, week, day)`,
	}},
	{name: "names", edits: []string{
		`[users]`, "schema = \"Syncer\"\n[users]",
		`name = "main"`, `name = "Main"`,
		`secret = "openim-secret"`, `secret = "x"
[[apps]]
name = "chat"
provider = "openim"
openim = { base_url = "https://h", secret = "x" }
[[apps]]
name = "a-b"
provider = "openim"
openim = { base_url = "https://h", secret = "x" }
[[apps]]
name = "a_b"
provider = "openim"
openim = { base_url = "https://h", secret = "x" }
[[jobs]]
name = "p"
kind = "presense"
app = "mian"
schedule = "@daily"
[[jobs]]
name = "p"
schedule = "@daily"`,
	}, want: []string{
		`config.toml:4: database.schema: "Syncer" is no simple name (allowed: at most 31 lower-case letters, digits and _, no digit first)`,
		`config.toml:9: apps[0].name: "Main" is no name (allowed: at most 41 lower-case letters, digits, - and _, first a letter or digit)`,
		`config.toml:23: apps[2].name: "chat" is taken by apps[1]; names must differ`,
		`config.toml:31: apps[4].name: "a_b" and "a-b", of apps[3], are the same in the names of environment variables; names must differ in more than - and _`,
		`config.toml:36: jobs[0].kind: unknown kind "presense" (allowed: presence, accounts)`,
		`config.toml:37: jobs[0].app: unknown app "mian" (allowed: Main, chat, chat, a-b, a_b, or "" for every app)`,
		`config.toml:39: jobs[1].kind: is missing (allowed: presence, accounts)`,
		`config.toml:40: jobs[1].name: "p" is taken by jobs[0]; names must differ`,
	}},
	{name: "a schema of Postgres", edits: []string{"[users]", "schema = \"pg_syncer\"\n[users]"}, want: []string{
		`config.toml:4: database.schema: "pg_syncer" is a schema of Postgres itself; use another`}},
	{name: "provider unknown", edits: []string{`provider = "tencent"`, `provider = "Tencent"`}, want: []string{
		`config.toml:9: apps[0].provider: unknown provider "Tencent" (allowed: tencent, openim)`}},
	{name: "provider's section missing, and another's there", edits: []string{`provider = "tencent"`, `provider = "openim"`}, want: []string{
		`config.toml:7: apps[0].openim: is missing: provider "openim" needs a section [apps.openim]`,
		`config.toml:10: apps[0].tencent: does not belong here: the provider of this app is "openim"; remove the section or change the provider`}},
	{name: "neither region nor base_url", edits: []string{`region = "singapore"`, ``}, want: []string{
		`config.toml:10: apps[0].tencent.region: is missing: give region, or base_url for another address`}},
	{name: "both region and base_url", edits: []string{`region = "singapore"`, "region = \"tokyo\"\nbase_url = \"https://x\""}, want: []string{
		`config.toml:14: apps[0].tencent.base_url: both region and base_url are given; keep one`}},
	{name: "Tencent over http", edits: []string{`region = "singapore"`, `base_url = "http://im.example"`}, want: []string{
		`config.toml:13: apps[0].tencent.base_url: must begin with https:// (http only for this machine: localhost, 127.0.0.1): requests carry a signature`}},
	{name: "OpenIM over http", edits: []string{`"https://10.0.0.7:10002/"`, `"http://10.0.0.7:10002/"`}, want: []string{
		`config.toml:19: apps[1].openim.base_url: must begin with https:// (http only for this machine: localhost, 127.0.0.1): the secret and tokens could be read on the way; allow_http = true if that network is yours`}},
	{name: "CAs nowhere", edits: []string{`region = "singapore"`, "region = \"singapore\"\nca_file = \"/nowhere/ca.pem\""}, want: []string{
		`config.toml:14: apps[0].tencent.ca_file: cannot be used: open /nowhere/ca.pem: no such file or directory`}},
	{name: "traces over http", edits: []string{"[users]", "[traces]\nendpoint = \"http://collector:4318\"\n[users]"}, want: []string{
		`config.toml:5: traces.endpoint: must begin with https:// (http only for this machine: localhost, 127.0.0.1): traces name hosts and apps; allow_http = true if that network is yours`}},
	{name: "traces in the wrong form", edits: []string{"[users]", "[traces]\nendpoint = \"collector:4317\"\nheaders = \"Bearer s3cret\"\nsample = 2\nca_file = \"/nowhere/ca.pem\"\n[users]"}, want: []string{
		`config.toml:5: traces.endpoint: is no web address (want https://host or https://host:port, with or without a path)`,
		`config.toml:6: traces.headers: line 1 is no header (want "Name: value", one a line)`,
		`config.toml:7: traces.sample: must be between 0 and 1, is 2`,
		`config.toml:8: traces.ca_file: cannot be used: open /nowhere/ca.pem: no such file or directory`}},
	{name: "profiles for everybody", edits: []string{"[users]", "[http]\nlisten = \":9464\"\npprof = true\n[users]"}, want: []string{
		`config.toml:6: http.pprof: profiles of a daemon that listens to other machines (:9464) take a token: give token_file or token in [http], or listen on 127.0.0.1`}},
	{name: "a schedule without end", edits: []string{"[users]", "[[jobs]]\nname = \"x\"\nkind = \"presence\"\nschedule = \"" + strings.Repeat("long ", 1000) + "\"\n[users]"}, want: []string{
		`config.toml:7: jobs[0].schedule: "` + strings.Repeat("long ", 12) + `…" is no schedule (allowed: five fields "minute hour day month weekday", @hourly, @daily, @weekly, @monthly, @yearly, "@every 90s"): expected exactly 5 fields, found 1000: [` +
			strings.Repeat("long ", 32) + `…`}},
	{name: "no web address", edits: []string{`"https://10.0.0.7:10002/"`, `"10.0.0.7:10002"`}, want: []string{
		`config.toml:19: apps[1].openim.base_url: is no web address (want https://host or https://host:port, with or without a path)`}},
	{name: "web address with a query", edits: []string{`"https://10.0.0.7:10002/"`, `"https://10.0.0.7:10002/?a=b"`}, want: []string{
		`config.toml:19: apps[1].openim.base_url: must hold no user, password, query or fragment`}},
	{name: "a password that is not encoded", edits: []string{`"https://10.0.0.7:10002/"`, `"https://user:/hidden@10.0.0.7:10002/"`}, want: []string{
		`config.toml:19: apps[1].openim.base_url: must hold no user, password, query or fragment`}},
	{name: "web address without host", edits: []string{`"https://10.0.0.7:10002/"`, `"http://:10002/"`}, want: []string{
		`config.toml:19: apps[1].openim.base_url: names no host`}},
	{name: "required text empty", edits: []string{`"https://10.0.0.7:10002/"`, `""`, `"openim-secret"`, `""`, `region =`, "identifier = \"\"\nregion ="}, want: []string{
		`config.toml:13: apps[0].tencent.identifier: must not be empty`,
		`config.toml:20: apps[1].openim.base_url: must not be empty`,
		`config.toml:21: apps[1].openim.secret: must not be empty`}},
	{name: "administrator", edits: []string{`region =`, "identifier = \"administratör\"\nregion ="}, want: []string{
		`config.toml:13: apps[0].tencent.identifier: must be an account of the app: at most 32 printable ASCII characters`}},
	{name: "no users table", edits: []string{"table = \"users\"\n", "", `secret = "openim-secret"`, "secret = \"x\"\n[apps.users]\nwhere = \"x\""}, want: []string{
		`config.toml:4: users.table: is missing: name the table that lists the users, such as "public.users"`,
	}},
	{name: "no users table of an app", edits: []string{"[users]\ntable = \"users\"\n", "",
		`secret = "openim-secret"`, "secret = \"x\"\n[apps.users]\nwhere = \"x\"", `name = "main"`, "name = \"main\"\nusers.table = \"x\""}, want: []string{
		`config.toml:20: apps[1].users.table: is missing: name the table that lists the users, such as "public.users"`}},
	{name: "column", edits: []string{`table = "users"`, "table = \"users\"\nkey_column = \"lower(id)\""}, want: []string{
		`config.toml:6: users.key_column: "lower(id)" is no column's name (want one name; an unusual one quoted, as in "userId"); expressions belong in user_id`}},
	{name: "address to listen on", edits: []string{`[users]`, "[http]\nlisten = \"localhost\"\n[users]"}, want: []string{
		`config.toml:5: http.listen: "localhost" is no address (want "host:port", such as "127.0.0.1:9464", or "" for none)`}},
	{name: "address of the pages", edits: []string{`[users]`, "[web]\nlisten = \"9465\"\n[users]"}, want: []string{
		`config.toml:5: web.listen: "9465" is no address (want "host:port", such as "127.0.0.1:9465", or "" for none)`}},
	{name: "pages without a password", edits: []string{`[users]`, "[web]\nlisten = \":9465\"\n[users]"}, want: []string{
		`config.toml:5: web.listen: :9465 is reached from other machines, so the pages need a password: give token_file in [web] (a file made with: openssl rand -hex 24), or listen on 127.0.0.1 behind a proxy with a login`}},
	{name: "pages and metrics at one address", edits: []string{`[users]`, "[web]\nlisten = \"127.0.0.1:9464\"\n[users]"}, want: []string{
		`config.toml:5: web.listen: 127.0.0.1:9464 is http.listen too: pages and metrics have servers of their own; use another port`}},
	{name: "database", edits: []string{`postgres://syncer@localhost/app`, `postgres://syncer@localhost:x/app`}, want: []string{
		`config.toml:2: database.url: is no Postgres connection string: the port is no number from 1 to 65535 (want "postgres://user:password@host:5432/database" with special characters of the password %-encoded, or "host=… user=… dbname=…")`}},
	{name: "database certificate", edits: []string{`postgres://syncer@localhost/app`, `postgres://syncer@localhost/app?sslmode=verify-full&sslrootcert=/no/ca.pem`}, want: []string{
		`config.toml:2: database.url: is no Postgres connection string: it names a file that cannot be read: open /no/ca.pem: no such file or directory (want "postgres://user:password@host:5432/database" with special characters of the password %-encoded, or "host=… user=… dbname=…")`}},
	{name: "another program's parameters", edits: []string{`postgres://syncer@localhost/app`, `postgres://syncer@localhost/app?schema=x&pgbouncer=true&sslmode=disable`}, want: []string{
		`config.toml:2: database.url: holds the parameter pgbouncer, which Postgres refuses: set poll_only = true in [database] instead; the parameter schema, which Postgres refuses: set schema in [database] instead`}},
	{name: "libpq's parameters", edits: []string{`postgres://syncer@localhost/app`, `host=localhost user=syncer dbname=app keepalives_idle=30`}, want: []string{
		`config.toml:2: database.url: holds the parameter keepalives_idle, which Postgres refuses: syncer sets keep-alives itself`}},
	{name: "Java's form", edits: []string{`postgres://syncer@localhost/app`, `jdbc:postgresql://localhost/app?user=x&password=hunter2`}, want: []string{
		`config.toml:2: database.url: is no Postgres connection string: jdbc: is Java's form, with user and password as parameters (want "postgres://user:password@host:5432/database" with special characters of the password %-encoded, or "host=… user=… dbname=…")`}},
	{name: "blanks around a secret", edits: []string{`secret_key = "tencent-key"`, `secret_key = " tencent-key"`, `secret = "openim-secret"`, `secret = "\uFEFFopenim-secret"`}, want: []string{
		`config.toml:12: apps[0].tencent.secret_key: begins or ends with a blank, which is part of no secret; take it out`,
		`config.toml:20: apps[1].openim.secret: begins with a byte order mark; save it as UTF-8 without one`}},
	{name: "all of a job", edits: []string{`[users]`, "[[jobs]]\nname = \"x\"\nkind = \"presense\"\nschedule = \"1,,2 * * * *\"\ntimezone = \"CET\"\n[users]"}, want: []string{
		`config.toml:6: jobs[0].kind: unknown kind "presense" (allowed: presence, accounts)`,
		`config.toml:7: jobs[0].schedule: "1,,2 * * * *" is no schedule (allowed: five fields "minute hour day month weekday", @hourly, @daily, @weekly, @monthly, @yearly, "@every 90s"): 1,,2 has an empty part: remove a comma`,
		`config.toml:8: jobs[0].timezone: time zone "CET" means summer time to some programs and not to others; name a city instead, such as "Europe/Brussels"`}},
	{name: "pages larger than ranges", edits: []string{`[users]`, "[sweep]\nrange_users = 1000\n[users]"}, want: []string{
		`config.toml:5: sweep.range_users: range_users (1000) must not be less than page_users (5000): a range is made of pages`}},
	{name: "gap shorter than the interval", edits: []string{`[users]`, "[sweep]\nmax_gap = \"59s\"\n[users]"}, want: []string{
		`config.toml:5: sweep.max_gap: 59s is less than the 1m0s between two ticks of job "presence": all time would count as not observed`}},
	{name: "schedules", edits: []string{`secret = "openim-secret"`, `secret = "x"
jobs = 1
[[jobs]]
name = "a"
kind = "presence"
schedule = "* * * *"
timezone = "Local"
[[jobs]]
name = "b"
kind = "presence"
schedule = "CRON_TZ=UTC"
[[jobs]]
name = "c"
kind = "presence"
schedule = "0 0 30 2 *"
[[jobs]]
name = "d"
kind = "presence"
schedule = "@every 1500ms"
[[jobs]]
name = "e"
kind = "presence"
schedule = "CRON_TZ=Asia/Tokyo @daily"
timezone = "UTC"
[[jobs]]
name = "f"
kind = "presence"
schedule = "TZ=Mars/Phobos @daily"
[[jobs]]
name = "g"
kind = "presence"
schedule = ""
[[jobs]]
name = "h"
kind = "presence"
schedule = "61 * * * *"
[[jobs]]
name = "hints"
kind = "presence"
schedule = "@hourly"`}, want: []string{
		`config.toml:21: apps[1].openim.jobs: unknown key (allowed here: base_url, allow_http, ca_file, admin_user_id, secret, secret_file, presence_rate, accounts_rate, timeout, hook_secret, hook_secret_file)`,
		`config.toml:25: jobs[0].schedule: "* * * *" is no schedule (allowed: five fields "minute hour day month weekday", @hourly, @daily, @weekly, @monthly, @yearly, "@every 90s"): expected exactly 5 fields, found 4: [* * * *]`,
		`config.toml:26: jobs[0].timezone: unknown time zone "Local" (allowed: names of the tz database, such as "UTC" or "Asia/Singapore")`,
		`config.toml:30: jobs[1].schedule: "CRON_TZ=UTC" is no schedule (allowed: five fields "minute hour day month weekday", @hourly, @daily, @weekly, @monthly, @yearly, "@every 90s"): expected exactly 5 fields, found 0: []`,
		`config.toml:34: jobs[2].schedule: "0 0 30 2 *" never comes: no such day is in the calendar`,
		`config.toml:38: jobs[3].schedule: "@every 1500ms" must be a whole number of seconds, at least one and at most a year`,
		`config.toml:43: jobs[4].timezone: is UTC, but the schedule says Asia/Tokyo; keep one`,
		`config.toml:47: jobs[5].schedule: unknown time zone "Mars/Phobos" (allowed: names of the tz database, such as "UTC" or "Asia/Singapore")`,
		`config.toml:51: jobs[6].schedule: must not be empty`,
		`config.toml:55: jobs[7].schedule: "61 * * * *" is no schedule (allowed: five fields "minute hour day month weekday", @hourly, @daily, @weekly, @monthly, @yearly, "@every 90s"): end of range (61) above maximum (59): 61`,
		`config.toml:57: jobs[8].name: "hints" is the name under which the work on hooks is recorded; choose another one`,
	}},
	{name: "hooks", edits: []string{
		`region = "singapore"`, "region = \"singapore\"\nhook_token = \"" + strings.Repeat("x", 129) + "\"",
		`secret = "openim-secret"`, "secret = \"openim-secret\"\nhook_secret = \"a/b?c\"\n[hooks]\nlisten = \"9466\"\ntls_cert = \"cert.pem\"\nshare = 0\nmax_pending = 1",
	}, want: []string{
		`config.toml:14: apps[0].tencent.hook_token: is longer than the 128 characters that the console takes`,
		`config.toml:22: apps[1].openim.hook_secret: must be 16 to 128 letters, digits, - and _: it stands in a URL, and is all that protects the receiver (openssl rand -hex 16 prints one)`,
		`config.toml:23: hooks.tls_key: is missing: tls_cert needs tls_key`,
		`config.toml:24: hooks.listen: "9466" is no address (want "host:port", such as "0.0.0.0:9466", or "" for none)`,
		`config.toml:26: hooks.share: must be between 0.01 and 1, is 0`,
		`config.toml:27: hooks.max_pending: must be between 100 and 10000000, is 1`,
	}},
	{name: "hooks with a certificate that is not there", edits: []string{
		`secret = "openim-secret"`, "secret = \"openim-secret\"\n[hooks]\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"",
	}, want: []string{
		`config.toml:22: hooks.tls_cert: cannot be used with tls_key: open cert.pem: no such file or directory`,
	}},
}
