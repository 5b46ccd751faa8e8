package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is the path that our packages' paths begin with.
const module = "syncer/"

// allowed is docs/design.md §2: what of ours each package may import. What is
// not listed may import nothing of ours.
var allowed = map[string][]string{
	"cmd/syncer": {
		"imclient", "imclient/tencent", "imclient/openim", "imclient/imsim",
		"internal/admin", "internal/config", "internal/localtime", "internal/report", "internal/schedule", "internal/tracing", "jobs", "migrations", "repo",
	},
	"jobs":              {"imclient", "repo"},
	"repo":              {"imclient", "internal/pg"},
	"migrations":        {"internal/pg"},
	"imclient/tencent":  {"imclient"},
	"imclient/openim":   {"imclient"},
	"internal/config":   {"imclient", "internal/schedule"},
	"internal/report":   {"internal/localtime", "repo"},
	"internal/schedule": {"internal/localtime"},
	"internal/tracing":  {"imclient"},
	"internal/simulation": {
		"imclient", "imclient/tencent", "imclient/openim", "imclient/imsim", "jobs", "migrations", "repo",
	},
	"internal/demo":                        {"internal/leash", "internal/pgcluster", "internal/simulation"},
	"internal/bench":                       {"internal/leash", "internal/pgcluster"},
	"internal/benchreport":                 {"internal/pgcluster", "migrations", "repo"},
	"internal/benchsize":                   {"imclient/imsim", "internal/pgcluster", "internal/simulation", "repo"},
	"internal/pgtest":                      {"internal/pgcluster"},
	"internal/pgcluster/cmd/with-postgres": {"internal/pgcluster"},
}

// traced are the packages that may import OpenTelemetry: jobs says what a span is,
// internal/tracing sends them, and clients and repo take what is put around them.
var traced = []string{"jobs", "internal/tracing"}

// TestImports holds the direction of imports: tests are free.
func TestImports(t *testing.T) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	stdout, err := list.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := list.Start(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for d := json.NewDecoder(stdout); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		seen[name] = true
		for _, path := range p.Imports {
			of, ours := strings.CutPrefix(path, module)
			if ours && !slices.Contains(allowed[name], of) {
				t.Errorf("%s imports %s, against the direction of docs/design.md §2", name, of)
			}
			if strings.HasPrefix(path, "go.opentelemetry.io/") && !slices.Contains(traced, name) {
				t.Errorf("%s imports %s: only %v may", name, path, traced)
			}
		}
	}
	if err := list.Wait(); err != nil {
		t.Fatal(err)
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("there is no package %s", name)
		}
	}
}
