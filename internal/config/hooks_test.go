package config

import (
	"strings"
	"testing"
)

// TestHooksWarnings: a receiver that others can read, or that refuses everything, works,
// but probably not as intended.
func TestHooksWarnings(t *testing.T) {
	const refuses, readable = "all hooks are refused", "without TLS"
	for _, test := range []struct {
		name, hooks string
		environ     []string
		want        []string
	}{
		{"off", "", []string{"SYNCER_APPS_MAIN_TENCENT_HOOK_TOKEN=t"}, nil},
		{"no secret", `listen = "127.0.0.1:9466"`, nil, []string{refuses}},
		{"Tencent's", `listen = "127.0.0.1:9466"`, []string{"SYNCER_APPS_MAIN_TENCENT_HOOK_TOKEN=t"}, nil},
		{"OpenIM's, for others", `listen = ":9466"`, []string{"SYNCER_APPS_CHAT_OPENIM_HOOK_SECRET=0123456789abcdef"}, []string{readable}},
		{"both", `listen = "0.0.0.0:9466"`, nil, []string{readable, refuses}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := mustDecode(t, minimal+"[hooks]\n"+test.hooks+"\n", test.environ...).Warnings
			if len(got) != len(test.want) {
				t.Fatalf("warnings %q, want %q", got, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("warning %q, want %q", got[i], want)
				}
			}
		})
	}
}
