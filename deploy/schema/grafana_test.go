package schema

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// TestDashboards: each dashboard has only fields that Grafana knows, with values that it
// takes, and every query to Prometheus is PromQL. What the queries name and answer is
// tested in docs.
func TestDashboards(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	files, err := filepath.Glob("../grafana/dashboards/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Fatalf("%d dashboards, want 3", len(files))
	}
	queries := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard.Dashboard
		// These return errors that are not nil and hold nothing.
		if err := d.UnmarshalJSONStrict(text); err != nil && err.Error() != "" {
			t.Errorf("%s: %v", file, err)
		}
		if err := d.Validate(); err != nil && err.Error() != "" {
			t.Errorf("%s: %v", file, err)
		}
		var raw struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &raw); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, panel := range raw.Panels {
			for _, q := range panel.Targets {
				if q.Expr == "" {
					continue
				}
				queries++
				expr := strings.NewReplacer("$__rate_interval", "1m", "$job", "syncer", "$app", "main").Replace(q.Expr)
				if _, err := parser.NewParser(parser.Options{}).ParseExpr(expr); err != nil {
					t.Errorf("%s: panel %q: %v", file, panel.Title, err)
				}
			}
		}
	}
	if queries < 25 {
		t.Errorf("only %d queries to Prometheus", queries)
	}
}

// TestProvisioning: Grafana's provisioning files are of the shape that its documentation
// gives, and name the data source types of the dashboards.
func TestProvisioning(t *testing.T) {
	var sources struct {
		APIVersion  int `json:"apiVersion"`
		Datasources []struct {
			Name, Type, Access, URL, User string
			JSONData, SecureJSONData      map[string]any
		}
	}
	var providers struct {
		APIVersion int `json:"apiVersion"`
		Providers  []struct {
			Name, Folder, Type              string
			DisableDeletion, AllowUIUpdates bool
			Options                         struct{ Path string }
		}
	}
	for file, value := range map[string]any{"datasources": &sources, "dashboards": &providers} {
		text, err := os.ReadFile("../grafana/provisioning/" + file + "/syncer.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(text, value); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	types := map[string]bool{}
	for _, source := range sources.Datasources {
		types[source.Type] = true
	}
	if !types["prometheus"] || !types["grafana-postgresql-datasource"] || len(providers.Providers) != 1 || providers.Providers[0].Type != "file" {
		t.Errorf("data sources %+v, providers %+v", sources, providers)
	}
}
