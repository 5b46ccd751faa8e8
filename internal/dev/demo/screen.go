package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// width is how many columns the demo's own text takes at most.
const width = 96

// screen is what the demo says, in between the output of the commands.
type screen struct {
	out    io.Writer
	bright bool // headings and commands stand out
}

func newScreen(out io.Writer) *screen {
	file, ok := out.(*os.File)
	terminal := ok && term.IsTerminal(int(file.Fd()))
	return &screen{out: out, bright: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (s *screen) bold(text string) string {
	if !s.bright {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// heading begins a part of the demo.
func (s *screen) heading(title string) {
	rule := strings.Repeat("─", max(0, width-4-len(title)))
	fmt.Fprintf(s.out, "\n%s\n", s.bold("── "+title+" "+rule))
}

// say prints a paragraph.
func (s *screen) say(format string, args ...any) {
	for line := range strings.Lines(text.WrapSoft(fmt.Sprintf(format, args...), width)) {
		fmt.Fprintln(s.out, strings.TrimRight(line, " \n"))
	}
}

// gap prints an empty line.
func (s *screen) gap() { fmt.Fprintln(s.out) }

// prompt shows a command as somebody types it.
func (s *screen) prompt(command string) {
	fmt.Fprintf(s.out, "\n%s\n", s.bold("$ "+command))
}

// step does something that may take a while, and says how long it took.
func (s *screen) step(what string, do func() error) error {
	fmt.Fprintf(s.out, "  %-40s ", what)
	begun := time.Now()
	if err := do(); err != nil {
		fmt.Fprintln(s.out)
		return err
	}
	fmt.Fprintf(s.out, "%6s\n", roughly(time.Since(begun)))
	return nil
}

// table makes a plain table with the given columns; those from the numbered one
// on (counted from 1) hold numbers.
func (s *screen) table(numbersFrom int, columns ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(s.out)
	t.SetStyle(table.StyleLight)
	t.Style().Options.DrawBorder = false
	t.Style().Options.SeparateColumns = false
	t.Style().Format.Header = text.FormatDefault
	t.Style().Format.Footer = text.FormatDefault
	t.AppendHeader(columns)
	var right []table.ColumnConfig
	for n := numbersFrom; n <= len(columns); n++ {
		right = append(right, table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight, AlignFooter: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	return t
}

// bar draws a share of a full bar of so many cells, an eighth of a cell exact.
func bar(share float64, cells int) string {
	eighths := int(min(max(share, 0), 1)*float64(cells)*8 + 0.5)
	drawn := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		drawn += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return drawn + strings.Repeat(" ", cells-len([]rune(drawn)))
}

// thousands writes a count so that its size can be seen: 1,234,567.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// roughly writes a duration in seconds, such as "2.3 s".
func roughly(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
