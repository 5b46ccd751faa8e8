package docs_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"syncer/internal/hooks"
	"syncer/internal/web"
	"syncer/jobs"
)

// described is a metric of the program.
type described struct{ name, labels, help string }

// descriptions notes what is registered; nothing is collected.
type descriptions struct {
	prometheus.Registerer
	all []described
}

// descFormat is how a Desc prints itself, there being no other way to read it.
var descFormat = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*)", unit: "", constLabels: \{\}, variableLabels: \{(.*)\}\}$`)

// MustRegister notes the collectors' metrics.
func (d *descriptions) MustRegister(collectors ...prometheus.Collector) {
	for _, c := range collectors {
		descs := make(chan *prometheus.Desc)
		go func() { defer close(descs); c.Describe(descs) }()
		for desc := range descs {
			found := descFormat.FindStringSubmatch(desc.String())
			if found == nil {
				panic(fmt.Sprintf("unreadable description %s", desc))
			}
			d.all = append(d.all, described{name: found[1], help: found[2], labels: strings.ReplaceAll(found[3], ",", ", ")})
		}
	}
}

// metrics are those of the program, in the order in which they are made.
func metrics() []described {
	var d descriptions
	jobs.NewMetrics(&d)
	d.MustRegister(&jobs.State{})
	hooks.NewMetrics(&d)
	web.NewMetrics(&d)
	return d.all
}

// TestMetricsTable checks that operating.md lists exactly the metrics of the program,
// each with the help text of the program.
func TestMetricsTable(t *testing.T) {
	text, err := os.ReadFile("operating.md")
	if err != nil {
		t.Fatal(err)
	}
	const head = "| metric | labels | meaning |\n|---|---|---|\n"
	before, rest, begins := strings.Cut(string(text), head)
	got, after, ends := strings.Cut(rest, "<!-- end of metrics -->")
	if !begins || !ends {
		t.Fatal("operating.md has no table of metrics")
	}
	var want strings.Builder
	for _, m := range metrics() {
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", m.name, m.labels, m.help)
	}
	if *update {
		if err := os.WriteFile("operating.md", []byte(before+head+want.String()+"<!-- end of metrics -->"+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), got); diff != "" {
		t.Errorf("table of metrics (-program +operating.md):\n%s\n`go test ./docs -run TestMetricsTable -update` writes it", diff)
	}
}

// unlabelled are the labels whose values would be without bound, or somebody's,
// and those that Prometheus gives targets, in the place of ours.
var unlabelled = regexp.MustCompile(`\b(job|instance|user|user_id|id|run|run_id|range|operation_id|token|url|error|text)\b`)

func TestMetricNames(t *testing.T) {
	conventional := regexp.MustCompile(`^syncer_[a-z_]+$`)
	for _, m := range metrics() {
		if !conventional.MatchString(m.name) || unlabelled.MatchString(m.labels) || !strings.HasSuffix(m.help, ".") {
			t.Errorf("metric %+v", m)
		}
	}
}

// TestAlerts: rules ask for metrics and labels that there are, and each rule is
// played through, both firing and silent.
func TestAlerts(t *testing.T) {
	rules, err := os.ReadFile("../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	played, err := os.ReadFile("../deploy/prometheus/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{}
	for _, m := range metrics() {
		labels[m.name] = m.labels
	}
	for _, file := range []string{string(rules), string(played)} {
		for _, found := range regexp.MustCompile(`\b(syncer_\w+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(file, -1) {
			known, ok := labels[found[1]]
			if !ok {
				t.Errorf("there is no metric %s", found[1])
			}
			for _, label := range regexp.MustCompile(`(\w+)=`).FindAllStringSubmatch(found[2], -1) {
				if label[1] != "instance" && !slices.Contains(strings.Split(known, ", "), label[1]) {
					t.Errorf("%s has no label %s", found[1], label[1])
				}
			}
		}
	}
	operating, err := os.ReadFile("operating.md")
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^##+ (.+)$`).FindAllStringSubmatch(string(operating), -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(found[1]), "")
		headings["docs/operating.md#"+strings.ReplaceAll(anchor, " ", "-")] = true
	}
	for rule := range strings.SplitSeq(string(rules), "- alert: ") {
		name, annotations, _ := strings.Cut(rule, "\n")
		found := regexp.MustCompile(`(?m)^ +runbook_url: (\S+)$`).FindStringSubmatch(annotations)
		switch {
		case !strings.Contains(annotations, "expr:"): // before the first rule
		case found == nil:
			t.Errorf("alert %s has no runbook_url", name)
		case !headings[found[1]]:
			t.Errorf("alert %s: operating.md has no heading for %s", name, found[1])
		}
	}
	wanted := map[string]bool{}
	for _, found := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		wanted[found[1]] = true
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, found := range regexp.MustCompile(`alertname: (\w+)(}|\n\s+exp_alerts:)`).FindAllStringSubmatch(string(played), -1) {
		if found[2] == "}" {
			silent[found[1]] = true
		} else {
			fires[found[1]] = true
		}
	}
	if len(wanted) == 0 || !maps.Equal(wanted, fires) || !maps.Equal(wanted, silent) {
		t.Errorf("rules (-wanted +fires):\n%s\n(-wanted +silent):\n%s", cmp.Diff(wanted, fires), cmp.Diff(wanted, silent))
	}
}
