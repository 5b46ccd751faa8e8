package report

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"

	"syncer/repo/reports"
)

// uPlot draws the charts; see assets/README.md.
var (
	//go:embed assets/uPlot.iife.min.js
	chartScript string
	//go:embed assets/uPlot.min.css
	chartStyle string
	//go:embed assets/uPlot.LICENSE
	chartLicense string
	//go:embed assets/page.js
	pageScript string
	//go:embed assets/page.css
	pageStyle string
	//go:embed assets/page.html
	pageText string
)

var page = template.Must(template.New("page").Parse(pageText))

// openRows is the number of rows up to which a table is shown open in a section with
// charts.
const openRows = 8

// WriteHTML writes reports as one self-contained page. Its Content-Security-Policy
// permits only its own script and style, by hash, so that data cannot run as script.
func WriteHTML(w io.Writer, h Head, all []Report) error {
	data := pageData{TZ: h.Span.Location.String(), Charts: []Chart{}}
	p := pageView{Version: h.Version, App: h.app(), Span: h.span(), AsOf: minute(h.AsOf.In(h.Span.Location)), Title: "Reports"}
	if len(all) == 1 {
		p.Title = all[0].Title
	}
	p.Headlines = h.headlines(all)
	for _, r := range all {
		no := 0
		section := pageSection{ID: r.Name, Title: r.Title, Empty: r.Empty, Notes: r.Notes}
		for _, c := range r.Charts {
			section.Charts = append(section.Charts, pageChart{No: len(data.Charts), Title: c.Title, Gaps: len(c.Gaps) > 0})
			data.Charts = append(data.Charts, c)
		}
		for _, t := range r.Tables {
			no++
			section.Tables = append(section.Tables, pageTable{Table: t, Open: len(r.Charts) == 0 || len(t.Rows) <= openRows, File: fmt.Sprintf("%s-%d.csv", r.Name, no)})
		}
		if rows, ok := r.Rows.([]reports.ConcurrencyRow); ok {
			section.Heat = h.heatMaps(rows)
		}
		p.Sections = append(p.Sections, section)
	}
	// Marshal escapes <, > and & as \u003c and so on, so that data cannot end the
	// script.
	encoded, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode the charts: %w", err)
	}
	script := "/*\nuPlot, https://github.com/leeoniya/uPlot\n\n" + chartLicense + "\n*/\n" + chartScript + "\n" + pageScript
	style := chartStyle + "\n" + pageStyle
	p.Policy = "default-src 'none'; script-src " + hash(script) + "; style-src " + hash(style) +
		"; base-uri 'none'; form-action 'none'"
	p.Script = template.HTML("<script>" + script + "</script>")
	p.Style = template.HTML("<style>" + style + "</style>")
	p.Data = template.HTML(`<script type="application/json" id="data">` + string(encoded) + "</script>")
	return page.Execute(w, p)
}

// hash returns the hash of a text in the form of a Content-Security-Policy.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// pageData is the input of the page's script.
type pageData struct {
	TZ     string  `json:"tz"`
	Charts []Chart `json:"charts"`
}

// pageView is the input of the template.
type pageView struct {
	Title, App, Span, AsOf, Version string
	Policy                          string
	Script, Style, Data             template.HTML
	Headlines                       []headline
	Sections                        []pageSection
}

type pageSection struct {
	ID, Title, Empty string
	Charts           []pageChart
	Heat             []heatMap
	Tables           []pageTable
	Notes            []string
}

type pageChart struct {
	No    int
	Title string
	Gaps  bool
}

type pageTable struct {
	Table
	Open bool
	File string // name of its download
}

// Class returns the style of a column's cells.
func (t pageTable) Class(column int) string {
	if t.Columns[column].Right {
		return "number"
	}
	return ""
}

// Summary describes the content of a closed table.
func (t pageTable) Summary() string {
	rows := Count(int64(len(t.Rows))) + " rows"
	if len(t.Rows) == 1 {
		rows = "1 row"
	}
	if t.Title == "" {
		return rows
	}
	return t.Title + ": " + rows
}
