package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const withJobs = minimal + `
[[jobs]]
name = "presence"
kind = "presence"
schedule = "@every 1m"
timezone = "Asia/Tokyo"
[[jobs]]
name = "nightly"
kind = "accounts"
schedule = "@daily"
`

func TestChanges(t *testing.T) {
	for name, tc := range map[string]struct {
		edit []string // old, new, …
		want []string
	}{
		"none":             {nil, nil},
		"a level":          {[]string{"[users]", "[log]\nlevel = \"debug\"\n[users]"}, []string{"log.level"}},
		"a secret":         {[]string{"tencent-key", "another-key"}, []string{"apps.main.tencent.secret_key"}},
		"a rate":           {[]string{`region = "singapore"`, "region = \"singapore\"\npresence_rate = 7"}, []string{"apps.main.tencent.presence_rate"}},
		"a schedule":       {[]string{"@every 1m", "@every 90s"}, []string{"jobs.presence.schedule"}},
		"a time zone":      {[]string{"Asia/Tokyo", "Asia/Seoul"}, []string{"jobs.presence.timezone"}},
		"a job's name":     {[]string{"nightly", "daily"}, []string{"jobs.nightly", "jobs.daily"}},
		"an app's name":    {[]string{`"chat"`, `"talk"`}, []string{"apps.chat", "apps.talk"}},
		"the users' table": {[]string{`table = "users"`, `table = "people"`}, []string{"users.table", "apps.main.users.table", "apps.chat.users.table"}},
		"another provider": {
			[]string{"provider = \"openim\"\n[apps.openim]\nbase_url = \"https://10.0.0.7:10002/\"\nsecret = \"openim-secret\"",
				"provider = \"tencent\"\n[apps.tencent]\nsdk_app_id = 1\nsecret_key = \"k\"\nregion = \"seoul\""},
			[]string{"apps.chat.provider", "apps.chat.tencent", "apps.chat.openim"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			after := strings.NewReplacer(tc.edit...).Replace(withJobs)
			if diff := cmp.Diff(tc.want, Changes(mustDecode(t, withJobs), mustDecode(t, after))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Every setting is compared: each one that is changed alone is found.
func TestChanges_everySetting(t *testing.T) {
	const environ = "SYNCER_APPS_MAIN_USERS_WHERE="
	for _, key := range settingKeys(reflect.ValueOf(&Config{}).Elem(), "") {
		if strings.HasSuffix(key, "_file") || strings.HasSuffix(key, ".name") {
			continue
		}
		a, b := mustDecode(t, withJobs, environ), mustDecode(t, withJobs, environ)
		want := alter(t, reflect.ValueOf(b).Elem(), "", key)
		if diff := cmp.Diff([]string{want}, Changes(a, b)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
}

// alter sets a setting to another value and returns how Changes names it. Of a list it
// takes the first section that has the setting.
func alter(t *testing.T, v reflect.Value, path, key string) string {
	t.Helper()
	first, rest, _ := strings.Cut(key, ".")
	for _, f := range fields(v) {
		if f.key != first {
			continue
		}
		inner := join(path, f.key)
		switch kindOf(f.value) {
		case reflect.Struct:
			return alter(t, f.value, inner, rest)
		case reflect.Pointer:
			if f.value.IsNil() {
				return ""
			}
			return alter(t, f.value.Elem(), inner, rest)
		case reflect.Slice:
			for i := range f.value.Len() {
				item := f.value.Index(i)
				if name := alter(t, item, join(inner, item.FieldByName("Name").String()), rest); name != "" {
					return name
				}
			}
			return ""
		}
		switch value := f.value; {
		case f.value.Type() == reflect.TypeFor[*time.Location]():
			value.Set(reflect.ValueOf(time.FixedZone("another", 60)))
		case value.Kind() == reflect.String:
			value.SetString(value.String() + "x")
		case value.Kind() == reflect.Bool:
			value.SetBool(!value.Bool())
		case value.CanInt():
			value.SetInt(value.Int() + 1)
		case value.CanFloat():
			value.SetFloat(value.Float() + 1)
		case value.Type() == reflect.TypeFor[Table]():
			value.Set(reflect.ValueOf(Table{Name: "another"}))
		default:
			t.Fatalf("%s is a %s", inner, value.Type())
		}
		return inner
	}
	return ""
}
