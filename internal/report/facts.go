package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
)

// Section is a titled list of facts with an optional table.
type Section struct {
	Title  string
	Facts  []Fact
	Tables []Table
	Notes  []string
}

// Fact is a text under a name; an empty name continues the fact before.
type Fact struct{ Name, Text string }

func (s *Section) say(name, format string, args ...any) {
	s.Facts = append(s.Facts, Fact{name, fmt.Sprintf(format, args...)})
}

// WriteSections writes sections to the terminal's width. cut makes it truncate wider
// tables.
func WriteSections(w io.Writer, sections []Section, width int, cut bool) error {
	out := bufio.NewWriter(w)
	for i, s := range sections {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if s.Title != "" {
			fmt.Fprintln(out, Printable(s.Title))
		}
		names := 0
		for _, f := range s.Facts {
			names = max(names, text.StringWidth(f.Name))
		}
		for _, f := range s.Facts {
			writeFact(out, f, names, width)
		}
		for _, t := range s.Tables {
			fmt.Fprintln(out)
			t.write(out, width, cut)
		}
		for _, note := range s.Notes {
			fmt.Fprintf(out, "\n%s\n", wrap(note, width))
		}
	}
	return out.Flush()
}

// writeFact writes a name and, beside it, the wrapped text.
func writeFact(w io.Writer, f Fact, names, width int) {
	const least = 40 // minimum width of the text, even in a narrower terminal
	name := f.Name + strings.Repeat(" ", names-text.StringWidth(f.Name))
	for _, paragraph := range strings.Split(f.Text, "\n") {
		for line := range strings.SplitSeq(wrap(Printable(paragraph), max(width-names-3, least)), "\n") {
			fmt.Fprintf(w, " %s  %s\n", name, line)
			name = strings.Repeat(" ", names)
		}
	}
}

// write writes the table and reports whether lines were truncated.
func (t Table) write(w io.Writer, width int, cut bool) (wasCut bool) {
	if t.Title != "" {
		fmt.Fprintf(w, "%s\n", t.Title)
	}
	for line := range strings.SplitSeq(t.text(), "\n") {
		if cut && text.StringWidth(line) > width {
			line = text.Snip(line, width, "…")
			wasCut = true
		}
		fmt.Fprintln(w, line)
	}
	return wasCut
}

// instant formats a time to the second; the heading names the zone.
func instant(t time.Time) string { return t.Format(time.DateTime) }

// precise shows a time to the tenth of a second.
func precise(t time.Time) string { return t.Format(time.DateTime + ".0") }
