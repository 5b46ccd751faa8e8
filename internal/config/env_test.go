package config

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEnvironmentReplaces(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	write(t, secret, "from-env-file\n", 0o600)
	text := edit(t,
		`name = "main"`, `name = "main-app"`,
		`secret_key = "tencent-key"`, `secret_key_file = "not/there"`,
		`region = "singapore"`, "region = \"atlantis\"\n[apps.users]\nwhere = \"x\"")
	c := mustDecode(t, text,
		"PATH=/bin", "SYNCER_CONFIG=/etc/x", "SYNCER_TEST_POSTGRES=y", "SYNCERISH=1",
		"SYNCER_DATABASE_URL=postgres://env@db/app",
		"SYNCER_LOG_LEVEL=debug",
		"SYNCER_HTTP_LISTEN=",
		"SYNCER_SWEEP_PAGE_USERS=77",
		"SYNCER_SWEEP_COLLAPSE_RATIO=1",
		"SYNCER_HISTORY_RETENTION=1w2d",
		"SYNCER_APPS_MAIN_APP_TENCENT_SECRET_KEY=from=env\n",
		"SYNCER_APPS_MAIN_APP_TENCENT_REGION=silicon_valley",
		"SYNCER_APPS_MAIN_APP_TENCENT_DETAIL=false",
		"SYNCER_APPS_MAIN_APP_USERS_WHERE=region = 'eu'",
		"SYNCER_APPS_CHAT_OPENIM_SECRET_FILE="+secret,
		"SYNCER_JOBS_PRESENCE_SCHEDULE=@every 5m",
		"SYNCER_JOBS_PRESENCE_CATCH_UP=false",
	)
	tencent := c.Apps[0].Tencent
	got := []any{c.Database.URL.Reveal(), c.Log.Level, c.HTTP.Listen, c.Sweep.PageUsers, c.Sweep.CollapseRatio, c.History.Retention,
		tencent.SecretKey.Reveal(), tencent.Region, tencent.Detail, c.Apps[0].Users.Where, c.Apps[1].Users.Where,
		c.Apps[1].OpenIM.Secret.Reveal(), c.Jobs[0].Schedule, c.Jobs[0].Interval, c.Jobs[0].CatchUp}
	want := []any{"postgres://env@db/app", "debug", "", 77, 1.0, 9 * 24 * time.Hour,
		"from=env", "silicon_valley", false, "region = 'eu'", "",
		"from-env-file", "@every 5m", 5 * time.Minute, false}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

// A provider's section, or a users' one, can be given by the environment alone.
func TestEnvironmentAddsSections(t *testing.T) {
	text := edit(t, "[database]\nurl = \"postgres://syncer@localhost/app\"\n", "",
		"[users]\ntable = \"users\"\n", "",
		"[apps.openim]\nbase_url = \"https://10.0.0.7:10002/\"\nsecret = \"openim-secret\"\n", "")
	c := mustDecode(t, text,
		"SYNCER_DATABASE_URL=postgres://env@db/app",
		"SYNCER_USERS_TABLE=people",
		"SYNCER_APPS_CHAT_OPENIM_BASE_URL=https://im.example",
		"SYNCER_APPS_CHAT_OPENIM_SECRET=s")
	if got := c.Apps[1].OpenIM; got == nil || got.BaseURL != "https://im.example" || got.PresenceRate != 50 {
		t.Errorf("openim: %+v", got)
	}
	if got := c.Apps[1].Users.Table.Name; got != "people" {
		t.Errorf("users table: %q", got)
	}
}

func TestEnvironmentProblems(t *testing.T) {
	for name, c := range map[string]struct {
		environ []string
		want    string
	}{
		"a bad value names the variable": {
			[]string{"SYNCER_SWEEP_WORKERS=900", "SYNCER_APPS_MAIN_TENCENT_REGION=mars", "SYNCER_LOG_LEVEL=", "SYNCER_SWEEP_PAGE_USERS=many"},
			`SYNCER_APPS_MAIN_TENCENT_REGION: apps[0].tencent.region: unknown region "mars" (allowed: china, frankfurt, jakarta, seoul, silicon_valley, singapore, tokyo)
SYNCER_LOG_LEVEL: log.level: unknown level "" (allowed: debug, info, warn, error)
SYNCER_SWEEP_PAGE_USERS: sweep.page_users: must be a whole number, is "many"
SYNCER_SWEEP_WORKERS: sweep.workers: must be between 1 and 64, is 900`,
		},
		"no text": {
			[]string{"SYNCER_USERS_WHERE=\xff", "SYNCER_HTTP_TOKEN=a\x00"},
			"SYNCER_HTTP_TOKEN: http.token: must not hold a NUL character\nSYNCER_USERS_WHERE: users.where: must be valid UTF-8",
		},
		"no such setting": {
			[]string{"SYNCER_DATABSE_URL=x", "SYNCER_FOO=x", "SYNCER_APPS_MIAN_TENCENT_REGION=x", "SYNCER_APPS_NOBODY_OPENIM_X=x", "SYNCER_APPS_MAIN_NAME=x"},
			`SYNCER_APPS_MAIN_NAME: is no setting of an app or job that the file names; see [[apps]] and [[jobs]] there
SYNCER_APPS_MIAN_TENCENT_REGION: is no setting of syncer; did you mean SYNCER_APPS_MAIN_TENCENT_REGION?
SYNCER_APPS_NOBODY_OPENIM_X: is no setting of an app or job that the file names; see [[apps]] and [[jobs]] there
SYNCER_DATABSE_URL: is no setting of syncer; did you mean SYNCER_DATABASE_URL?
SYNCER_FOO: is no setting of syncer: unset it, or correct its name`,
		},
		"both ways at once": {
			[]string{"SYNCER_DATABASE_URL=postgres://a:hunter2@b/c", "SYNCER_DATABASE_URL_FILE=/x"},
			`SYNCER_DATABASE_URL: database.url: both url and url_file are given; keep one`,
		},
		"a file that is not there": {
			[]string{"SYNCER_APPS_MAIN_TENCENT_SECRET_KEY_FILE=no/such/file"},
			`SYNCER_APPS_MAIN_TENCENT_SECRET_KEY_FILE: apps[0].tencent.secret_key_file: cannot be read: open no/such/file: no such file or directory`,
		},
		"the other provider's section": {
			[]string{"SYNCER_APPS_CHAT_TENCENT_SECRET_KEY=hunter2", "SYNCER_APPS_CHAT_TENCENT_REGION=tokyo"},
			`SYNCER_APPS_CHAT_TENCENT_REGION: apps[1].tencent.sdk_app_id: is missing
SYNCER_APPS_CHAT_TENCENT_REGION: apps[1].tencent: does not belong here: the provider of this app is "openim"; remove the section or change the provider`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := bind("config.toml", []byte(minimal), c.environ)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(strings.Split(c.want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// A Service named syncer makes Kubernetes set these in every container.
func TestEnvironmentOfKubernetes(t *testing.T) {
	mustDecode(t, minimal,
		"SYNCER_SERVICE_HOST=10.0.0.1", "SYNCER_SERVICE_PORT=9464", "SYNCER_SERVICE_PORT_HTTP=9464",
		"SYNCER_PORT=tcp://10.0.0.1:9464", "SYNCER_PORT_9464_TCP=tcp://10.0.0.1:9464", "SYNCER_PORT_9464_TCP_PROTO=tcp",
		"SYNCER_PORT_9464_TCP_PORT=9464", "SYNCER_PORT_9464_TCP_ADDR=10.0.0.1", "SYNCER_METRICS_SERVICE_HOST=10.0.0.2",
		"SYNCER_METRICS_PORT=tcp://10.0.0.2:1")
	if _, _, err := bind("config.toml", []byte(minimal), []string{"SYNCER_HTTP_PORT=9464"}); err == nil {
		t.Error("SYNCER_HTTP_PORT=9464 is none of Kubernetes's and no setting, but is accepted")
	}
}
