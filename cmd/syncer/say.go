package main

import (
	"fmt"

	"syncer/internal/report"
)

// say prints a line to stdout. It makes control characters in its arguments visible, which
// may come from users, databases and providers. A string is printed on one line; a paragraph
// may have several.
func (p *program) say(format string, args ...any) {
	fmt.Fprintf(p.stdout, format+"\n", printable(args)...)
}

// paragraph is a text of several lines.
type paragraph string

func printable(args []any) []any {
	shown := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			shown[i] = report.Printable(v)
		case paragraph:
			shown[i] = report.PrintableLines(string(v))
		case fmt.Stringer:
			shown[i] = report.Printable(v.String())
		default:
			shown[i] = arg
		}
	}
	return shown
}
