package report

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/guptarohit/asciigraph"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// WriteText writes reports for people. width is the terminal's; cut makes WriteText
// truncate wider tables.
func WriteText(w io.Writer, h Head, reports []Report, width int, cut bool) error {
	out := bufio.NewWriter(w)
	wasCut := false
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%s, %s\n%s\n", r.Title, h.app(), h.span())
		if r.Empty != "" {
			fmt.Fprintf(out, "\n%s\n", wrap(r.Empty, width))
		}
		for _, c := range r.Charts {
			if curve := h.curve(c, width); curve != "" {
				fmt.Fprintf(out, "\n%s\n", curve)
			}
		}
		for _, t := range r.Tables {
			fmt.Fprintln(out)
			wasCut = t.write(out, width, cut) || wasCut
		}
		for _, note := range r.Notes {
			fmt.Fprintf(out, "\n%s\n", wrap(note, width))
		}
	}
	if wasCut {
		fmt.Fprintf(out, "\n%s\n", wrap("Where lines end with … the terminal is too narrow; all is in: syncer report … | less -S", width))
	}
	return out.Flush()
}

// TableStyle is the style of all tables for people.
func TableStyle() table.Style {
	style := table.StyleLight
	style.Options.DrawBorder = false
	style.Options.SeparateColumns = false
	style.Format.Header = text.FormatDefault
	style.Format.Footer = text.FormatDefault
	return style
}

func (t Table) text() string {
	out := table.NewWriter()
	out.SetStyle(TableStyle())
	out.SuppressTrailingSpaces()
	var titles table.Row
	var right []table.ColumnConfig
	for i, c := range t.Columns {
		titles = append(titles, c.Title)
		if c.Right {
			right = append(right, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight, AlignFooter: text.AlignRight})
		}
	}
	out.AppendHeader(titles)
	out.SetColumnConfigs(right)
	for _, cells := range t.Rows {
		out.AppendRow(row(cells))
	}
	if t.Footer != nil {
		out.AppendFooter(row(t.Footer))
	}
	return out.Render()
}

// wrap splits a text into lines.
func wrap(s string, width int) string {
	lines := strings.Split(text.WrapSoft(s, width), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func row(cells []string) table.Row {
	r := make(table.Row, len(cells))
	for i, cell := range cells {
		r[i] = Printable(cell)
	}
	return r
}

// curve draws a chart as wide as the terminal; "" if it is not meant for one.
func (h Head) curve(c Chart, width int) string {
	if c.terminal < 0 || len(c.X) < 2 {
		return ""
	}
	values := c.Series[c.terminal].Values
	most := 0.0
	for _, v := range values {
		if v != nil {
			most = max(most, *v)
		}
	}
	const axis = 3 // between label and curve, and beyond the last label
	columns := max(width-len(average(most))-axis-4, 20)
	points, blank := resample(c.X, values, columns)
	form := "Jan 2"
	first, last := c.X[0], c.X[len(c.X)-1]
	if last-first <= 36*3600 && !c.Daily {
		form = "15:04"
	}
	step := roundStep(most)
	height := max(int(math.Ceil(most/step)), 1)
	curve := asciigraph.Plot(points,
		asciigraph.Height(height), asciigraph.LowerBound(0), asciigraph.UpperBound(float64(height)*step),
		asciigraph.YAxisValueFormatter(average),
		asciigraph.XAxisRange(first, last), asciigraph.XAxisTickCount(max(columns/14, 2)),
		asciigraph.XAxisValueFormatter(func(at float64) string {
			return time.UnixMicro(int64(at * 1e6)).In(h.Span.Location).Format(form)
		}))
	title := c.Title + ", " + c.Series[c.terminal].Label
	if blank {
		title += " (blank: nobody looked)"
	}
	return title + "\n" + curve
}

// roundStep returns the round number, at least one, of which a dozen reach a value.
func roundStep(most float64) float64 {
	for step := 1.0; ; step *= 10 {
		for _, factor := range []float64{1, 2, 5} {
			if most <= 12*factor*step {
				return factor * step
			}
		}
	}
}

// resample distributes values over columns: the average of the values in a column,
// else the interpolation of its neighbours. A column without known values is NaN;
// blank reports whether there is one.
func resample(x []float64, values []*float64, columns int) (points []float64, blank bool) {
	step := (x[len(x)-1] - x[0]) / float64(columns-1)
	points = make([]float64, columns)
	next := 0 // the first value not before the column's end
	for column := range points {
		at := x[0] + float64(column)*step
		begin := next
		for next < len(x) && x[next] < at+step/2 {
			next++
		}
		points[column] = mean(values[begin:next])
		if begin == next && begin > 0 && begin < len(x) {
			points[column] = between(x[begin-1], x[begin], values[begin-1], values[begin], at)
		}
		blank = blank || math.IsNaN(points[column])
	}
	return points, blank
}

// mean returns the average of known values; NaN if at most half are known.
func mean(values []*float64) float64 {
	sum, n := 0.0, 0
	for _, v := range values {
		if v != nil {
			sum += *v
			n++
		}
	}
	if 2*n <= len(values) {
		return math.NaN()
	}
	return sum / float64(n)
}

func between(x0, x1 float64, v0, v1 *float64, at float64) float64 {
	if v0 == nil || v1 == nil {
		return math.NaN()
	}
	return *v0 + (*v1-*v0)*(at-x0)/(x1-x0)
}
