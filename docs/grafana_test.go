package docs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"syncer/repo"
)

// dashboard is what these tests read of a dashboard. Whether Grafana accepts the file is
// checked in deploy/schema.
type dashboard struct {
	UID         string
	Title       string
	Description string
	Templating  struct{ List []variable }
	Annotations struct{ List []annotation }
	Panels      []panel
}

type variable struct {
	Name, Type string
	Multi      bool
	Datasource source
	Query      any
}

type annotation struct {
	Name       string
	Datasource source
	Target     target
}

type panel struct {
	Type, Title, Description string
	Datasource               source
	Targets                  []target
	FieldConfig              struct{ Defaults struct{ Unit string } }
}

type source struct{ Type, UID string }

type target struct {
	Datasource   source
	Expr, RawSQL string
	Format       string
	Instant      bool
}

// dashboards returns the dashboards by the names of their files.
func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob("../deploy/grafana/dashboards/*.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]dashboard{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[filepath.Base(file)] = d
	}
	if len(all) != 3 {
		t.Fatalf("%d dashboards, want 3", len(all))
	}
	return all
}

// targets returns all queries of a dashboard by what they belong to.
func (d dashboard) targets() map[string]target {
	all := map[string]target{}
	for _, p := range d.Panels {
		for i, q := range p.Targets {
			all[fmt.Sprintf("panel %q, query %d", p.Title, i+1)] = q
		}
	}
	for _, a := range d.Annotations.List {
		all[fmt.Sprintf("annotation %q", a.Name)] = a.Target
	}
	return all
}

// TestDashboards checks what Grafana's own linter asks for: texts, units and data sources
// that are variables, so that a file serves for import and for provisioning.
func TestDashboards(t *testing.T) {
	used := regexp.MustCompile(`\$\{?(\w+)`)
	for file, d := range dashboards(t) {
		if d.UID == "" || d.Title == "" || d.Description == "" {
			t.Errorf("%s: uid %q, title %q, description %q", file, d.UID, d.Title, d.Description)
		}
		text, err := os.ReadFile("../deploy/grafana/dashboards/" + file)
		if err != nil {
			t.Fatal(err)
		}
		uses := map[string]bool{}
		for _, found := range used.FindAllStringSubmatch(string(text), -1) {
			uses[found[1]] = true
		}
		for _, v := range d.Templating.List {
			if !uses[v.Name] {
				t.Errorf("%s: variable %s is not used", file, v.Name)
			}
			delete(uses, v.Name)
		}
		for name := range uses {
			if !strings.HasPrefix(name, "__") {
				t.Errorf("%s: there is no variable %s", file, name)
			}
		}
		for _, p := range d.Panels {
			if p.Type == "row" {
				continue
			}
			if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %q has description %q, unit %q and %d queries", file, p.Title, p.Description, p.FieldConfig.Defaults.Unit, len(p.Targets))
			}
			for _, q := range p.Targets {
				if !strings.HasPrefix(p.Datasource.UID, "${") || q.Datasource != p.Datasource {
					t.Errorf("%s: panel %q has the data sources %v and %v", file, p.Title, p.Datasource, q.Datasource)
				}
			}
		}
	}
}

// TestDashboardMetrics checks that queries name metrics and labels that the program has.
func TestDashboardMetrics(t *testing.T) {
	labels := map[string][]string{}
	for _, m := range metrics() {
		labels[m.name] = append(strings.Split(m.labels, ", "), "job", "instance", "le")
	}
	metric := regexp.MustCompile(`\b(syncer_[a-z_]+)\{([^}]*)\}`)
	label := regexp.MustCompile(`(\w+)\s*[=!]`)
	grouped := regexp.MustCompile(`\bby \(([^)]*)\)`)
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	asked := 0
	for file, d := range dashboards(t) {
		for where, q := range d.targets() {
			for _, found := range metric.FindAllStringSubmatch(q.Expr, -1) {
				asked++
				name := strings.TrimSuffix(found[1], "_bucket")
				known, ok := labels[name]
				if !ok {
					t.Errorf("%s: %s: there is no metric %s", file, where, name)
					continue
				}
				names := label.FindAllStringSubmatch(found[2], -1)
				for _, by := range grouped.FindAllStringSubmatch(q.Expr, -1) {
					for part := range strings.SplitSeq(by[1], ", ") {
						names = append(names, []string{"", part})
					}
				}
				for _, l := range names {
					if !slices.Contains(known, l[1]) {
						t.Errorf("%s: %s: %s has no label %s", file, where, name, l[1])
					}
				}
			}
			if strings.Contains(q.Expr, "rate(") && !strings.Contains(q.Expr, "[$__rate_interval]") {
				t.Errorf("%s: %s: a rate over a fixed time: %s", file, where, q.Expr)
			}
			for _, l := range legend.FindAllStringSubmatch(q.Expr, -1) {
				t.Errorf("%s: %s: a legend in the query: %s", file, where, l[0])
			}
		}
	}
	if asked < 20 {
		t.Errorf("only %d metrics are asked for", asked)
	}
}

// macros are what Grafana replaces in the SQL of its Postgres data source, for the month of
// the example and intervals of an hour. The order counts.
var macros = []struct {
	macro *regexp.Regexp
	sql   string
}{
	{regexp.MustCompile(`\$__timeGroup\((\w+), \$__interval\)`), `floor(extract(epoch from $1)/3600)*3600`},
	{regexp.MustCompile(`\$__timeFilter\(([\w.]+)\)`), `$1 BETWEEN '2026-03-02T00:00:00Z' AND '2026-03-30T00:20:00Z'`},
	{regexp.MustCompile(`\$__timeFrom\(\)`), `'2026-03-02T00:00:00Z'`},
	{regexp.MustCompile(`\$__timeTo\(\)`), `'2026-03-30T00:20:00Z'`},
}

// TestDashboardSQL runs every query on the example as a role with the rights of
// syncer grant-reader, and checks that each has rows and the columns that its panel needs.
func TestDashboardSQL(t *testing.T) {
	t.Parallel()
	conn := example(t)
	const role = "syncer_grafana"
	for _, statement := range append([]string{"CREATE ROLE " + role}, append(repo.GrantReaderSQL("syncer", role), "RESET search_path", "SET ROLE "+role)...) {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, statement := range []string{"RESET ROLE", "DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := conn.Exec(context.WithoutCancel(t.Context()), statement); err != nil {
				t.Error(err)
			}
		}
	})
	// A variable with several values is quoted by Grafana, one with a single value is not.
	values := map[string]string{"tz": "UTC", "user": "ann"}
	empty := map[string]bool{`panel "Failures", query 1`: true, `annotation "Failed runs"`: true}
	asked := 0
	for _, file := range slices.Sorted(maps.Keys(dashboards(t))) {
		d := dashboards(t)[file]
		for _, v := range d.Templating.List {
			if query, ok := v.Query.(string); ok && strings.HasPrefix(query, "SELECT") {
				rows(t, conn, file, v.Name, query)
			}
			if v.Name == "app" {
				values["app"] = map[bool]string{true: "'main','chat'", false: "main"}[v.Multi]
			}
		}
		for where, q := range d.targets() {
			if q.RawSQL == "" {
				continue
			}
			asked++
			statement := q.RawSQL
			for _, m := range macros {
				statement = m.macro.ReplaceAllString(statement, m.sql)
			}
			for name, value := range values {
				statement = strings.ReplaceAll(statement, "$"+name, value)
			}
			if strings.Contains(statement, "$") {
				t.Errorf("%s: %s: a macro or variable is left: %s", file, where, statement)
				continue
			}
			columns, n := rows(t, conn, file+": "+where, "", statement)
			if n == 0 && !empty[where] {
				t.Errorf("%s: %s: no rows", file, where)
			}
			if strings.HasPrefix(where, "annotation") && !slices.Contains(columns, "text") || q.Format == "time_series" && columns[0] != "time" {
				t.Errorf("%s: %s: columns %v", file, where, columns)
			}
		}
	}
	if asked < 15 {
		t.Errorf("only %d queries were found", asked)
	}
}

// rows returns the columns of a statement's answer and the number of its rows.
func rows(t *testing.T, conn *pgx.Conn, where, name, statement string) (columns []string, n int) {
	t.Helper()
	answer, err := conn.Query(t.Context(), statement, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Errorf("%s %s: %v\n%s", where, name, err, statement)
		return nil, 0
	}
	defer answer.Close()
	for _, column := range answer.FieldDescriptions() {
		columns = append(columns, column.Name)
	}
	for answer.Next() {
		n++
	}
	if err := answer.Err(); err != nil {
		t.Errorf("%s %s: %v\n%s", where, name, err, statement)
	}
	return columns, n
}
