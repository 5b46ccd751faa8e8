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
		"imclient", "imclient/tencent", "imclient/openim",
		"internal/admin", "internal/archive", "internal/build", "internal/config", "internal/hooks", "internal/imsim", "internal/localtime", "internal/pg", "internal/report", "internal/schedule", "internal/tracing", "internal/web", "jobs", "migrations", "repo", "repo/reports", "repo/userstable",
	},
	"jobs":              {"imclient", "internal/build", "internal/pg", "jobs/ask", "repo", "repo/userstable"},
	"jobs/ask":          {"imclient"},
	"internal/archive":  {"repo"},
	"repo":              {"imclient", "internal/pg", "repo/userstable"},
	"repo/userstable":   {"internal/pg"},
	"repo/reports":      {"imclient", "internal/pg"},
	"migrations":        {"internal/pg"},
	"imclient/tencent":  {"imclient"},
	"imclient/openim":   {"imclient"},
	"internal/config":   {"imclient", "internal/schedule"},
	"internal/report":   {"internal/localtime", "repo/reports", "repo/userstable"},
	"internal/schedule": {"internal/localtime"},
	"internal/hooks":    {"imclient"},
	"internal/web":      {"imclient", "internal/admin", "internal/localtime", "internal/pg", "internal/report", "repo/reports"},
	"internal/tracing":  {"imclient"},
	"internal/dev/lab": {
		"imclient", "imclient/tencent", "imclient/openim", "internal/imsim", "internal/pg", "jobs", "migrations", "repo", "repo/userstable",
	},
	"internal/dev/demo":                        {"internal/dev/leash", "internal/dev/pgcluster", "internal/dev/lab"},
	"internal/bench":                           {"internal/dev/leash", "internal/dev/pgcluster"},
	"internal/benchreport":                     {"internal/dev/pgcluster", "internal/pg", "migrations", "repo"},
	"internal/benchsize":                       {"internal/imsim", "internal/dev/pgcluster", "internal/dev/lab", "internal/pg", "repo"},
	"internal/dev/pgcluster":                   {"internal/dev/leash"},
	"internal/dev/pgtest":                      {"internal/dev/pgcluster"},
	"internal/dev/pgcluster/cmd/with-postgres": {"internal/dev/pgcluster"},
}

// traced are the packages that may import OpenTelemetry: jobs says what a span is,
// internal/tracing sends them, and clients and repo take what is put around them.
var traced = []string{"jobs", "internal/tracing"}

// tools is the folder of what builds, tests, measures and shows syncer. Only
// tools import it, so that nothing of it can end up in the program.
const tools = "internal/dev/"

// isTool reports whether a package is a tool.
func isTool(name string) bool {
	return strings.HasPrefix(name, tools) || strings.HasPrefix(name, "internal/bench")
}

// TestImports checks the direction of imports. Tests may import anything.
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
		checkImports(t, name, p.Imports)
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

// checkImports checks the imports of a package.
func checkImports(t *testing.T, name string, imports []string) {
	t.Helper()
	for _, path := range imports {
		of, ours := strings.CutPrefix(path, module)
		if ours && !slices.Contains(allowed[name], of) {
			t.Errorf("%s imports %s, against the direction of docs/design.md §2", name, of)
		}
		if strings.HasPrefix(of, tools) && !isTool(name) {
			t.Errorf("%s imports %s: only tools may import tools", name, of)
		}
		if strings.HasPrefix(path, "go.opentelemetry.io/") && !slices.Contains(traced, name) {
			t.Errorf("%s imports %s: only %v may", name, path, traced)
		}
	}
}
