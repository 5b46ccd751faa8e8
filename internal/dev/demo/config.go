package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// What syncer simulate expects unless told otherwise.
const (
	tencentKey   = "simulated-tencent-key"
	openIMSecret = "simulated-openim-secret"
)

// configText has places for the simulator's address, twice, and for the
// intervals of both jobs. Names are short and comments few: it is shown.
const configText = `[database]
url_file = "database_url"
[http]
listen = "127.0.0.1:0"        # health checks; port 0 is any free one
[users]                       # your own table; it is only ever read
table      = "public.users"
key_column = "id"
user_id    = "im_id"
[sweep]
collapse_ratio = 1            # off: here hours go by between sweeps, and people with them

[[apps]]
name     = "tencent"
provider = "tencent"
[apps.tencent]
sdk_app_id      = 1400000000
identifier      = "administrator"
secret_key_file = "tencent_key"
base_url        = "%[1]s"

[[apps]]
name     = "openim"
provider = "openim"
[apps.openim]
base_url      = "%[1]s"
admin_user_id = "imAdmin"
secret_file   = "openim_secret"

[[jobs]]
name     = "presence"         # who is online, and on what
kind     = "presence"
schedule = "@every %[2]s"
[[jobs]]
name     = "accounts"         # who has been imported
kind     = "accounts"
schedule = "@every %[3]s"
`

// accountsEvery is how many presence sweeps there are to one of accounts.
const accountsEvery = 4

// config is the demo's configuration.
func (d *demo) config() string {
	return fmt.Sprintf(configText, d.simURL, d.interval, accountsEvery*d.interval)
}

// writeConfig writes the configuration and the secrets that it refers to.
func (d *demo) writeConfig() error {
	files := []struct{ name, text string }{
		{"config.toml", d.config()},
		{"database_url", d.databaseURL},
		{"tencent_key", tencentKey},
		{"openim_secret", openIMSecret},
	}
	for _, file := range files {
		if err := os.WriteFile(filepath.Join(d.dir, file.name), []byte(file.text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// seconds writes whole seconds as one says them.
func seconds(d time.Duration) string {
	if d == time.Second {
		return "second"
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds()))
}
