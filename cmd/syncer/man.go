package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"syncer/internal/build"
)

func (p *program) manCommand() *cli.Command {
	return &cli.Command{
		Name:        "man",
		Usage:       "print the manual page",
		Description: "It has the help of all commands, for man(1)." + examples("syncer man | man -l -"),
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArgs(c); err != nil {
				return err
			}
			_, err := fmt.Fprint(p.stdout, manual(commandsOf(c.Root())))
			return err
		},
	}
}

// manual returns the manual page in the man macros of roff. Its sections after the commands
// are those that the help of a command does not have.
func manual(all []listed) string {
	var b strings.Builder
	root := all[0].command
	fmt.Fprintf(&b, ".TH SYNCER 1 \"\" %q \"User Commands\"\n", "syncer "+build.Read().Version)
	fmt.Fprintf(&b, ".SH NAME\nsyncer \\- %s\n", roff(root.Usage))
	b.WriteString(".SH SYNOPSIS\n.B syncer\n.I COMMAND\n[\\fIOPTIONS\\fR]\n")
	b.WriteString(".SH DESCRIPTION\n" + paragraphs(root.Description))
	b.WriteString(".SH COMMANDS\n")
	for _, l := range all[1:] {
		fmt.Fprintf(&b, ".SS \"%s\"\n", roff(strings.TrimSpace(l.path+" "+l.command.ArgsUsage)))
		fmt.Fprintf(&b, "%s.\n", roff(strings.ToUpper(l.command.Usage[:1])+l.command.Usage[1:]))
		if l.command.Description != "" {
			b.WriteString(".PP\n" + paragraphs(l.command.Description))
		}
		for _, o := range l.options {
			names := "\\fB" + strings.Join(roffed(o.names), "\\fR, \\fB") + "\\fR"
			if o.value != "" {
				names += " \\fI" + roff(o.value) + "\\fR"
			}
			fmt.Fprintf(&b, ".TP\n%s\n%s\n", names, roff(o.usage))
		}
	}
	b.WriteString(manEnd)
	return b.String()
}

const manEnd = `.SH ENVIRONMENT
.TP
\fBSYNCER_\fR\fISECTION\fR\fB_\fR\fIKEY\fR
Overrides a setting of the configuration, for instance \fBSYNCER_DATABASE_URL\fR.
.SH FILES
.TP
\fI./config.toml\fR, \fI/etc/syncer/config.toml\fR
The configuration, unless \fB\-\-config\fR names another file. Its comments describe each setting.
.SH SEE ALSO
.BR psql (1),
.BR systemd.unit (5)
`

// paragraphs returns a description. Indented lines are commands, which are not filled.
func paragraphs(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
			b.WriteString(".PP\n")
		case strings.HasPrefix(line, "  "):
			b.WriteString(".EX\n" + roff(line) + "\n.EE\n")
		default:
			b.WriteString(roff(line) + "\n.br\n")
		}
	}
	return b.String()
}

// roff escapes a line of text.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func roffed(all []string) []string {
	var escaped []string
	for _, s := range all {
		escaped = append(escaped, roff(s))
	}
	return escaped
}
