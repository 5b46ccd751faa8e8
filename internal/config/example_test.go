package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"syncer/imclient/tencent"
)

const examplePath = "../../config.example.toml"

// settingKeys lists all keys below a struct, as sections of a file name them:
// "sweep.page_users", "apps.tencent.secret_key_file".
func settingKeys(v reflect.Value, path string) []string {
	var keys []string
	for _, f := range fields(v) {
		inner := join(path, f.key)
		switch kindOf(f.value) {
		case reflect.Struct:
			keys = append(keys, settingKeys(f.value, inner)...)
		case reflect.Pointer, reflect.Slice:
			keys = append(keys, settingKeys(reflect.New(f.value.Type().Elem()).Elem(), inner)...)
		default:
			keys = append(keys, inner)
			if f.file {
				keys = append(keys, inner+"_file")
			}
		}
	}
	return keys
}

func TestExampleLoads(t *testing.T) {
	c, err := Load(examplePath, []string{
		"SYNCER_APPS_MAIN_TENCENT_SECRET_KEY=x",
		"SYNCER_APPS_CHAT_OPENIM_SECRET=x",
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings: %q", c.Warnings)
	}
	// What it shows as defaults are the defaults.
	d := mustDecode(t, minimal)
	for name, pair := range map[string][2]any{
		"log": {c.Log, d.Log}, "http": {c.HTTP, d.HTTP}, "hooks": {c.Hooks, d.Hooks}, "sweep": {c.Sweep, d.Sweep}, "history": {c.History, d.History}, "report": {c.Report, d.Report}, "web": {c.Web, d.Web},
		"presence job": {c.Jobs[0], d.Jobs[0]}, "accounts job": {c.Jobs[1].Schedule, d.Jobs[1].Schedule},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: the example has %+v, the defaults are %+v", name, pair[0], pair[1])
		}
	}
	tencent, openim := *c.Apps[0].Tencent, *c.Apps[1].OpenIM
	tencent.SecretKey, openim.Secret, openim.BaseURL = "tencent-key", "openim-secret", "https://10.0.0.7:10002"
	if tencent != *d.Apps[0].Tencent || openim != *d.Apps[1].OpenIM {
		t.Errorf("providers: the example has %+v and %+v, the defaults are %+v and %+v", tencent, openim, *d.Apps[0].Tencent, *d.Apps[1].OpenIM)
	}
}

// Without the secrets' files, the example's only problems are those.
func TestExampleWithoutSecrets(t *testing.T) {
	_, err := Load(examplePath, nil)
	if err == nil {
		t.Fatal("no error")
	}
	for line := range strings.Lines(err.Error()) {
		if !strings.Contains(line, "_file: cannot be read: open /run/secrets/") {
			t.Errorf("problem: %s", line)
		}
	}
}

func TestExampleHasEveryKey(t *testing.T) {
	text, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	header := regexp.MustCompile(`^#?\[+([a-z.]+)\]+$`)
	setting := regexp.MustCompile(`^#?([a-z_]+) = .+`)
	shown := map[string]bool{}
	section := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if m := header.FindStringSubmatch(line); m != nil {
			section = m[1]
		} else if m := setting.FindStringSubmatch(line); m != nil {
			shown[section+"."+m[1]] = true
		}
	}
	known := settingKeys(reflect.ValueOf(&Config{}).Elem(), "")
	for _, key := range known {
		if !shown[key] {
			t.Errorf("%s is not in the example", key)
		}
		delete(shown, key)
	}
	for key := range shown {
		t.Errorf("%s is in the example, but is no setting", key)
	}
	if len(known) < 50 {
		t.Errorf("only %d settings found", len(known))
	}
}

// The regions are written here and, with their hosts, in the client.
func TestRegionsAreTheClients(t *testing.T) {
	field, _ := reflect.TypeFor[Tencent]().FieldByName("Region")
	here := strings.Fields(field.Tag.Get("allowed"))
	if there := slices.Sorted(slices.Values(tencent.Regions())); !slices.Equal(here, there) {
		t.Errorf("configurable are %q, known to the client are %q", here, there)
	}
}
