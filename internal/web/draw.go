package web

import (
	"fmt"
	"math"
	"strings"
	"time"

	"syncer/internal/report"
	"syncer/repo/reports"
)

// Curves are drawn in coordinates of the drawing, which the page stretches.
const (
	sparkWidth, sparkHeight = 288, 44
	chartWidth, chartHeight = 960, 200
)

// curve is the number of users online over time, as paths of SVG.
type curve struct {
	W, H     int
	Line     string // of averages
	Band     string // between the smallest and the largest count
	Gaps     []rect
	Top      string // the value at the upper edge
	Highest  string // the largest count
	Half     string
	From, To string
	Marks    []mark // on the time axis
	Points   []point
	Known    bool // there is something to draw
}

type rect struct {
	X, W  float64
	Title string
}

type mark struct {
	X    float64 // of 100
	Text string
}

// point is a bucket of a curve, for its tooltip.
type point struct {
	X, W  float64
	Title string
}

// scale maps times to coordinates.
type scale struct {
	from, to time.Time
	width    float64
}

func (s scale) x(t time.Time) float64 {
	x := s.width * t.Sub(s.from).Seconds() / s.to.Sub(s.from).Seconds()
	return tenth(min(max(x, 0), s.width))
}

// tenth rounds a coordinate.
func tenth(x float64) float64 { return math.Round(10*x) / 10 }

// draw returns the curve of an app.
func draw(p *past, app string, width, height int) curve {
	c := curve{W: width, H: height}
	location := p.From.Location()
	at := scale{p.From, p.AsOf, float64(width)}
	var top int64
	for _, row := range p.Concurrency {
		if row.App == app && row.OnlineMax != nil {
			top = max(top, *row.OnlineMax)
		}
	}
	c.Highest = report.Count(top)
	ceiling := roundUp(top)
	y := func(v float64) float64 { return tenth(float64(height) - 1 - (float64(height)-3)*v/ceiling) }
	var line, upper, lower strings.Builder
	var lowers []string
	flush := func() {
		if len(lowers) > 1 {
			fmt.Fprintf(&lower, "%s", upper.String())
			for i := len(lowers) - 1; i >= 0; i-- {
				lower.WriteString(lowers[i])
			}
			lower.WriteString("Z")
		}
		upper.Reset()
		lowers = nil
	}
	began := false
	for _, row := range p.Concurrency {
		if row.App != app {
			continue
		}
		end := row.Bucket.Add(time.Duration(row.BucketSeconds * float64(time.Second)))
		if row.OnlineAvg == nil || row.ObservedSeconds <= 0 && row.Runs == 0 {
			flush()
			began = false
			continue
		}
		x := at.x(row.Bucket.Add(end.Sub(row.Bucket) / 2))
		command := "L"
		if !began {
			command = "M"
		}
		fmt.Fprintf(&line, "%s%g %g", command, x, y(*row.OnlineAvg))
		if !began {
			line.WriteString("l0 0") // a point without neighbours is a dot
		}
		fmt.Fprintf(&upper, "%s%g %g", command, x, y(float64(*row.OnlineMax)))
		lowers = append(lowers, fmt.Sprintf("L%g %g", x, y(float64(*row.OnlineMin))))
		began, c.Known = true, true
		x0, x1 := at.x(row.Bucket), at.x(end)
		c.Points = append(c.Points, point{x0, tenth(max(x1-x0, 1)), fmt.Sprintf("%s  %s online (%s to %s), runs: %d", row.Bucket.In(location).Format("2006-01-02 15:04"),
			report.Count(int64(math.Round(*row.OnlineAvg))), report.Count(*row.OnlineMin), report.Count(*row.OnlineMax), row.Runs)})
	}
	flush()
	c.Line, c.Band = line.String(), lower.String()
	c.Gaps = gapRects(p.Gaps, app, "presence", at, p.AsOf, location)
	c.Top, c.Half = report.Count(int64(ceiling)), report.Count(int64(ceiling/2))
	c.From, c.To = p.From.Format("2006-01-02 15:04"), p.AsOf.In(location).Format("2006-01-02 15:04")
	c.Marks = marks(p.Range, at, location)
	return c
}

// gapRects returns the gaps of an app and kind.
func gapRects(gaps []reports.GapRow, app, kind string, at scale, now time.Time, location *time.Location) []rect {
	var all []rect
	for _, g := range gaps {
		if g.App != app || g.Kind != kind {
			continue
		}
		end, text := now, "not observed since "+g.StartedAt.In(location).Format(time.DateTime)
		if g.EndedAt != nil {
			end = *g.EndedAt
			text = "not observed from " + g.StartedAt.In(location).Format(time.DateTime) + " to " + end.In(location).Format(time.DateTime)
		}
		x := at.x(g.StartedAt)
		if w := at.x(end) - x; w > 0 {
			all = append(all, rect{x, tenth(max(w, 1)), text})
		}
	}
	return all
}

// roundUp returns a round number that is at least n and 1.
func roundUp(n int64) float64 {
	v := max(float64(n), 1)
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, step := range []float64{1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10} {
		if ceiling := step * unit; ceiling >= v {
			return math.Ceil(ceiling)
		}
	}
	return v
}

// marks returns the marks of a time axis at round local times.
func marks(rangeName string, at scale, location *time.Location) []mark {
	var all []mark
	from := at.from.In(location)
	days, hours, format := 0, 6, "15:04"
	switch rangeName {
	case "7d":
		days, hours, format = 1, 0, "Mon 2"
	case "90d":
		days, hours, format = 14, 0, "2 Jan"
	}
	t := time.Date(from.Year(), from.Month(), from.Day(), 0, 0, 0, 0, location)
	for ; !t.After(at.to); t = time.Date(t.Year(), t.Month(), t.Day()+days, t.Hour()+hours, 0, 0, 0, location) {
		if x := 100 * at.x(t) / at.width; t.After(at.from) && x > 2 && x < 97 {
			all = append(all, mark{tenth(x), t.Format(format)})
		}
	}
	return all
}

// gridRow is the runs of an app, kind and job over time.
type gridRow struct {
	App, Kind, Job string
	W, H           int
	Cells          []gridCell
	Runs, Failed   int64
	Skipped        int64
}

type gridCell struct {
	X      int
	Symbol string // name of its shape
	Title  string
	URL    string // "": nothing to show
}

// cellSize is the size of a cell, in pixels of the drawing.
const cellSize = 14

// legend is a shape of the grid and its meaning.
type legend struct{ Symbol, Text string }

var legends = []legend{
	{"succeeded", "succeeded"}, {"partial", "partial: some users failed"}, {"failed", "failed"}, {"cancelled", "cancelled"},
	{"running", "running"}, {"skipped", "skipped"}, {"gap", "not observed"},
}

// grid returns the rows of the grid and the marks of its time axis. p is nil if it could
// not be read.
func (s *Server) grid(p *past, t timeRange, shown func(app string) bool) (rows []gridRow, ticks []mark) {
	if p == nil {
		return nil, nil
	}
	starts := p.CellStarts
	end := func(i int) time.Time {
		if i+1 < len(starts) {
			return starts[i+1]
		}
		return p.AsOf
	}
	ticks = marks(t.Name, scale{starts[0], starts[len(starts)-1].Add(starts[1].Sub(starts[0])), 100 * cellSize}, s.Location)
	for i := 0; i < len(p.Cells); {
		first := p.Cells[i]
		row := gridRow{App: first.App, Kind: first.Kind, Job: first.Job, W: cellSize * len(starts), H: cellSize}
		filled := map[int]reports.CellRow{}
		for ; i < len(p.Cells) && p.Cells[i].App == first.App && p.Cells[i].Kind == first.Kind && p.Cells[i].Job == first.Job; i++ {
			filled[p.Cells[i].Bucket-1] = p.Cells[i]
			row.Runs += p.Cells[i].Runs - p.Cells[i].Skipped
			row.Failed += p.Cells[i].Failed
			row.Skipped += p.Cells[i].Skipped
		}
		if !shown(first.App) {
			continue
		}
		for no, start := range starts {
			cell, ok := filled[no]
			c := gridCell{X: no * cellSize, Symbol: "none"}
			when := start.In(s.Location).Format("2006-01-02 15:04")
			switch {
			case ok:
				c.Symbol, c.URL, c.Title = cell.Worst, fmt.Sprintf("/run/%d", cell.RunID), when+"  "+outcomes(cell)
			case inGap(p.Gaps, first.App, first.Kind, start, end(no), p.AsOf):
				c.Symbol, c.Title = "gap", when+"  not observed"
			}
			row.Cells = append(row.Cells, c)
		}
		rows = append(rows, row)
	}
	return rows, ticks
}

// outcomes describes the runs of a cell.
func outcomes(c reports.CellRow) string {
	var all []string
	for _, o := range []struct {
		n    int64
		what string
	}{{c.Failed, "failed"}, {c.Cancelled, "cancelled"}, {c.Partial, "partial"}, {c.Running, "running"}, {c.Succeeded, "succeeded"}, {c.Skipped, "skipped"}} {
		if o.n > 0 {
			all = append(all, report.Count(o.n)+" "+o.what)
		}
	}
	if c.Seconds > 0 {
		all = append(all, "the longest took "+took(c.Seconds))
	}
	return strings.Join(all, ", ")
}

// inGap reports whether a stretch of time lies in a gap.
func inGap(gaps []reports.GapRow, app, kind string, from, to, now time.Time) bool {
	for _, g := range gaps {
		end := now
		if g.EndedAt != nil {
			end = *g.EndedAt
		}
		if g.App == app && g.Kind == kind && !g.StartedAt.After(from) && !end.Before(to) {
			return true
		}
	}
	return false
}
