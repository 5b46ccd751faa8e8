package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// result is what was measured.
type result struct {
	about   string
	figures []figure
}

// figure is one thing that was measured, once or several times.
type figure struct {
	scenario, what string
	target         target
	show           func(float64) string
	values         []float64 // in the order of the runs
}

// target is what a figure should be; the zero value is none.
type target struct {
	sign  string // ≥, ≤ or <
	value float64
}

func atLeast(v float64) target { return target{"≥", v} }
func atMost(v float64) target  { return target{"≤", v} }
func below(v float64) target   { return target{"<", v} }

// met reports whether a value is what it should be.
func (t target) met(v float64) bool {
	switch t.sign {
	case "≥":
		return v >= t.value
	case "≤":
		return v <= t.value
	case "<":
		return v < t.value
	}
	return true
}

func (r *result) add(scenario, what string, t target, show func(float64) string, values ...float64) {
	r.figures = append(r.figures, figure{scenario, what, t, show, values})
}

// find gives the median of a figure, if it was measured.
func (r *result) find(scenario, what string) (float64, bool) {
	for _, f := range r.figures {
		if f.scenario == scenario && f.what == what {
			return median(f.values), true
		}
	}
	return 0, false
}

// missing says which figures have no value.
func (r *result) missing() error {
	var errs []error
	for _, f := range r.figures {
		if len(f.values) == 0 || slices.ContainsFunc(f.values, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }) {
			errs = append(errs, fmt.Errorf("%s: %s was not measured", f.scenario, f.what))
		}
	}
	return errors.Join(errs...)
}

// median is the value in the middle, or half-way between the two there.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// quotients divides the values of a run by those of the same run of something
// else.
func quotients(values, by []float64) []float64 {
	var all []float64
	for i := range min(len(values), len(by)) {
		all = append(all, values[i]/by[i])
	}
	return all
}

// cells are a figure's row of the table.
func (f figure) cells() table.Row {
	row := table.Row{f.scenario, f.what, "", "–", "", "", ""}
	if len(f.values) == 0 {
		return row
	}
	m := median(f.values)
	row[3] = f.show(m)
	if len(f.values) > 1 {
		row[4] = f.show(slices.Min(f.values)) + " – " + f.show(slices.Max(f.values))
	}
	if f.target.sign == "" {
		return row
	}
	row[2] = f.target.sign + " " + f.show(f.target.value)
	if f.target.value != 0 {
		row[5] = twoPlaces(m / f.target.value)
	}
	row[6] = "short"
	if f.target.met(m) {
		row[6] = "pass"
	}
	return row
}

func (r *result) table() table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"scenario", "what", "target", "median", "spread", "ratio", ""})
	var right []table.ColumnConfig
	for column := 3; column <= 6; column++ {
		right = append(right, table.ColumnConfig{Number: column, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	for _, f := range r.figures {
		t.AppendRow(f.cells())
	}
	return t
}

// text is the result for a terminal, markdown the same for a file.
func (r *result) text() string     { return r.about + "\n\n" + r.table().Render() }
func (r *result) markdown() string { return r.about + "\n\n" + r.table().RenderMarkdown() + "\n" }

// How values are shown.

// thousands writes a number, rounded, with commas.
func thousands(v float64) string {
	digits := strconv.FormatInt(int64(math.Round(v)), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func twoPlaces(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }
func seconds(v float64) string   { return twoPlaces(v) + " s" }
func microseconds(v float64) string {
	return twoPlaces(v) + " µs"
}
func percent(v float64) string      { return twoPlaces(100*v) + " %" }
func mebibytes(v float64) string    { return strconv.FormatFloat(v/(1<<20), 'f', 1, 64) + " MiB" }
func bytesPerUser(v float64) string { return twoPlaces(v) + " B" }
