package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// width is how wide paragraphs and rules are.
const width = 100

// screen is where the demo is shown.
type screen struct {
	out    io.Writer
	bright bool // use bold text
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

// say prints a paragraph, with an empty line before it.
func (s *screen) say(format string, args ...any) {
	fmt.Fprintln(s.out)
	for line := range strings.Lines(text.WrapSoft(fmt.Sprintf(format, args...), width)) {
		fmt.Fprintln(s.out, strings.TrimRight(line, " \n"))
	}
}

// prompt shows a command as it is typed.
func (s *screen) prompt(command string) {
	fmt.Fprintf(s.out, "\n%s\n", s.bold("$ "+command))
}

// step does something that may take a while, and prints how long it took.
func (s *screen) step(what string, do func() error) error {
	fmt.Fprintf(s.out, "  %-40s ", what)
	begun := time.Now()
	if err := do(); err != nil {
		fmt.Fprintln(s.out)
		return err
	}
	fmt.Fprintf(s.out, "%4.1f s\n", time.Since(begun).Seconds())
	return nil
}
