package main

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v3"
)

// printHelp writes a command's help, wrapped at the width of the terminal.
func (p *program) printHelp(w io.Writer, template string, data any) {
	var text bytes.Buffer
	cli.DefaultPrintHelp(&text, template, data)
	width, _ := p.width()
	for line := range strings.Lines(text.String()) {
		_, _ = io.WriteString(w, hang(strings.TrimRight(line, " \n"), width)+"\n")
	}
}

// described matches a line with an option or command and its description.
var described = regexp.MustCompile(`^( +\S.*?  +)\S`)

// hang wraps a line at word boundaries to width columns. It indents the next lines like the
// text, after the name of an option or command.
func hang(line string, width int) string {
	indent := len(line) - len(strings.TrimLeft(line, " "))
	if m := described.FindStringSubmatch(line); m != nil && len(m[1]) <= width/2 {
		indent = len(m[1])
	}
	var b strings.Builder
	b.WriteString(line[:indent])
	column := indent
	for i, word := range strings.Split(line[indent:], " ") {
		length := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+length > width && column > indent:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += length
	}
	return b.String()
}

// examples returns the end of a command's description, with commands to paste.
func examples(commands ...string) string {
	return "\n\nExamples:\n  " + strings.Join(commands, "\n  ")
}
