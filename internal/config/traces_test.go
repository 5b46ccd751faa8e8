package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTraces(t *testing.T) {
	for name, tc := range map[string]struct {
		lines    string
		endpoint string
		header   map[string]string
	}{
		"off":               {"", "", map[string]string{}},
		"no path":           {`endpoint = "http://127.0.0.1:4318"`, "http://127.0.0.1:4318/v1/traces", map[string]string{}},
		"a slash":           {`endpoint = "https://collector:4318/"`, "https://collector:4318/v1/traces", map[string]string{}},
		"a path":            {`endpoint = "https://example.com/otlp/v1/traces"`, "https://example.com/otlp/v1/traces", map[string]string{}},
		"one's own network": {"endpoint = \"http://collector:4318\"\nallow_http = true", "http://collector:4318/v1/traces", map[string]string{}},
		"headers": {`headers = "Authorization: Bearer x:y=z, w\n\nx-team:  im \n"`, "",
			map[string]string{"Authorization": "Bearer x:y=z, w", "x-team": "im"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := mustDecode(t, edit(t, "[users]", "[traces]\n"+tc.lines+"\n[users]")).Traces
			header, err := got.Header()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.header, header); diff != "" || got.Endpoint != tc.endpoint {
				t.Errorf("endpoint %q, want %q; headers (-want +got):\n%s", got.Endpoint, tc.endpoint, diff)
			}
		})
	}
}
