package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// shells are the shells whose completion the program can print.
var shells = []struct {
	name, install string
	script        func([]listed) string
}{
	{"bash", "put 'eval \"$(syncer completion bash)\"' into ~/.bashrc, or store the output as /usr/share/bash-completion/completions/syncer", bashCompletion},
	{"zsh", "store the output as _syncer in a folder of $fpath", zshCompletion},
	{"fish", "store the output as ~/.config/fish/completions/syncer.fish", fishCompletion},
}

func (p *program) completionCommand() *cli.Command {
	c := &cli.Command{
		Name:        "completion",
		Usage:       "print the completion of commands and options for a shell",
		Description: "The completion is a script that compares words; it does not run syncer.",
	}
	for _, shell := range shells {
		c.Commands = append(c.Commands, &cli.Command{
			Name: shell.name, Usage: "print the completion for " + shell.name, Description: "To install it: " + shell.install + ".",
			Action: func(_ context.Context, c *cli.Command) error {
				if err := noArgs(c); err != nil {
					return err
				}
				_, err := fmt.Fprint(p.stdout, shell.script(commandsOf(c.Root())))
				return err
			},
		})
	}
	return c
}

// choice is an option that takes one of some values, which completions offer.
type choice struct {
	*cli.StringFlag
	values []string
}

// choose makes a flag take only the values, which its usage lists; what names one in errors.
func choose(what string, values []string, flag *cli.StringFlag) cli.Flag {
	flag.Validator = oneOf(what, values...)
	return &choice{StringFlag: flag, values: values}
}

// listed is a command as completions and the manual page list it.
type listed struct {
	path    string // "syncer report runs"
	command *cli.Command
	options []option
}

// option is an option of a command.
type option struct {
	names  []string // "--config", "-c"
	value  string   // its value in the help, such as FILE; "" without one
	usage  string
	values []string // the allowed values, if they are few
}

// commandsOf returns all commands in the order of the help, each before its subcommands.
func commandsOf(root *cli.Command) []listed {
	all := list(root, "")
	help := &cli.Command{Name: "help", Usage: "show the help of a command"}
	for _, c := range visible(root) {
		help.Commands = append(help.Commands, &cli.Command{Name: c.Name, Usage: c.Usage})
	}
	return append(all, listed{path: root.Name + " help", command: help})
}

func list(c *cli.Command, parent string) []listed {
	l := listed{path: strings.TrimSpace(parent + " " + c.Name), command: c}
	for _, flag := range c.Flags {
		if o, ok := optionOf(flag); ok {
			l.options = append(l.options, o)
		}
	}
	all := []listed{l}
	for _, sub := range visible(c) {
		all = append(all, list(sub, l.path)...)
	}
	return all
}

// visible returns a command's own subcommands; the library adds help to some.
func visible(c *cli.Command) []*cli.Command {
	return slices.DeleteFunc(c.VisibleCommands(), func(sub *cli.Command) bool { return sub.Name == "help" })
}

func optionOf(flag cli.Flag) (option, bool) {
	documented, ok := flag.(cli.DocGenerationFlag)
	if !ok || flag.Names()[0] == cli.HelpFlag.Names()[0] {
		return option{}, false
	}
	var o option
	for _, name := range flag.Names() {
		o.names = append(o.names, dashed(name))
	}
	// The library's line of the help: names, a tab, and the usage with default and environment.
	_, usage, _ := strings.Cut(cli.FlagStringer(flag), "\t")
	o.usage = strings.TrimSpace(usage)
	if documented.TakesValue() {
		o.value = "VALUE"
		if parts := strings.SplitN(documented.GetUsage(), "`", 3); len(parts) == 3 {
			o.value = parts[1]
		}
	}
	if c, ok := flag.(*choice); ok {
		o.values = c.values
	}
	return o, true
}

// isFile reports whether the option's value is the name of a file.
func (o option) isFile() bool { return o.value == "FILE" }

// subcommands returns the names of a command's subcommands.
func (l listed) subcommands() []string {
	var names []string
	for _, c := range l.command.VisibleCommands() {
		names = append(names, c.Name)
	}
	return names
}

// names returns the names of a command's options, with those of the library.
func (l listed) names() []string {
	var names []string
	for _, o := range l.options {
		names = append(names, o.names...)
	}
	return append(names, "--help")
}

// patterns returns the alternatives of a case of a shell, for each option that matches.
func patterns(all []listed, matches func(option) bool) string {
	var found []string
	for _, l := range all {
		for _, o := range l.options {
			if !matches(o) {
				continue
			}
			for _, name := range o.names {
				found = append(found, "'"+l.path+" "+name+"'")
			}
		}
	}
	return strings.Join(found, " | \\\n\t\t")
}

// paths returns the alternatives of a case of a shell for all subcommands.
func paths(all []listed) string {
	var found []string
	for _, l := range all[1:] {
		found = append(found, "'"+l.path+"'")
	}
	return strings.Join(found, " | \\\n\t\t\t")
}

// choices returns the cases of a shell for options with few values. format has places for
// the alternatives and the values.
func choices(all []listed, format string) string {
	var b strings.Builder
	for _, l := range all {
		for _, o := range l.options {
			if len(o.values) > 0 {
				one := []listed{{path: l.path, options: []option{o}}}
				fmt.Fprintf(&b, format, patterns(one, func(option) bool { return true }), strings.Join(o.values, " "))
			}
		}
	}
	return b.String()
}

func takesValue(o option) bool { return o.value != "" }

const bashScript = `# Completion of syncer for bash; printed by: syncer completion bash
_syncer() {
	local at=syncer cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words= i
	# bash splits --option=value at the equals sign.
	if [[ $cur == = ]]; then
		cur=
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	# The command, without the values of options.
	for ((i = 1; i < COMP_CWORD; i++)); do
		case "$at ${COMP_WORDS[i]}" in
		%[1]s)
			[[ ${COMP_WORDS[i+1]} == = ]] && ((i++))
			((i++))
			;;
		%[2]s)
			at+=" ${COMP_WORDS[i]}"
			;;
		esac
	done
	COMPREPLY=()
	case "$at $prev" in
	%[3]s)
		compopt -o default 2>/dev/null
		return
		;;
%[4]s	%[1]s)
		return
		;;
	esac
	if [[ -z $words && $cur == -* ]]; then
		case $at in
%[5]s		esac
	elif [[ -z $words ]]; then
		case $at in
%[6]s		esac
	fi
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _syncer syncer
`

func bashCompletion(all []listed) string {
	var options, commands strings.Builder
	for _, l := range all {
		fmt.Fprintf(&options, "\t\t'%s') words='%s' ;;\n", l.path, strings.Join(l.names(), " "))
		if names := l.subcommands(); len(names) > 0 {
			fmt.Fprintf(&commands, "\t\t'%s') words='%s' ;;\n", l.path, strings.Join(names, " "))
		}
	}
	return fmt.Sprintf(bashScript, patterns(all, takesValue), paths(all), patterns(all, option.isFile),
		choices(all, "\t%s)\n\t\twords='%s'\n\t\t;;\n"), options.String(), commands.String())
}

const zshScript = `#compdef syncer
# Completion of syncer for zsh; printed by: syncer completion zsh
_syncer() {
	local at=syncer cur=${words[CURRENT]} prev=${words[CURRENT-1]} i
	local -a found
	if [[ $cur == --*=* ]]; then
		prev=${cur%%%%=*}
		compset -P '*='
	fi
	# The command, without the values of options.
	for ((i = 2; i < CURRENT; i++)); do
		case "$at ${words[i]}" in
		%[1]s)
			((i++))
			;;
		%[2]s)
			at+=" ${words[i]}"
			;;
		esac
	done
	case "$at $prev" in
	%[3]s)
		_files
		return
		;;
%[4]s	%[1]s)
		_message 'a value'
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		case $at in
%[5]s		esac
		_describe -o option found
	else
		case $at in
%[6]s		esac
		_describe command found
	fi
}
if [[ $funcstack[1] == _syncer ]]; then
	_syncer "$@"
else
	compdef _syncer syncer
fi
`

func zshCompletion(all []listed) string {
	// A colon ends the word that is described.
	described := func(word, usage string) string {
		return " " + quoted(strings.ReplaceAll(word, ":", `\:`)+":"+usage)
	}
	var options, commands strings.Builder
	for _, l := range all {
		fmt.Fprintf(&options, "\t\t'%s') found=(", l.path)
		for _, o := range l.options {
			for _, name := range o.names {
				options.WriteString(described(name, o.usage))
			}
		}
		options.WriteString(described("--help", "show help") + ") ;;\n")
		if len(l.subcommands()) == 0 {
			continue
		}
		fmt.Fprintf(&commands, "\t\t'%s') found=(", l.path)
		for _, c := range l.command.VisibleCommands() {
			commands.WriteString(described(c.Name, c.Usage))
		}
		commands.WriteString(") ;;\n")
	}
	return fmt.Sprintf(zshScript, patterns(all, takesValue), paths(all), patterns(all, option.isFile),
		choices(all, "\t%s)\n\t\tfound=(%s)\n\t\t_describe value found\n\t\treturn\n\t\t;;\n"), options.String(), commands.String())
}

// quoted quotes a text for a POSIX shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

const fishScript = `# Completion of syncer for fish; printed by: syncer completion fish
# Reports whether the command so far, without the values of options, is $argv.
function __syncer_at
	set -l words (commandline -opc)
	set -l at syncer
	set -l skip 0
	for word in $words[2..-1]
		if test $skip = 1
			set skip 0
			continue
		end
		switch "$at $word"
			case %[1]s
				set skip 1
			case %[2]s
				set at "$at $word"
		end
	end
	test "$at" = "$argv"
end
complete -c syncer -f
%[3]s`

func fishCompletion(all []listed) string {
	fishQuoted := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
	}
	var rules strings.Builder
	for _, l := range all {
		at := fishQuoted("__syncer_at " + l.path)
		for _, c := range l.command.VisibleCommands() {
			fmt.Fprintf(&rules, "complete -c syncer -n %s -a %s -d %s\n", at, c.Name, fishQuoted(c.Usage))
		}
		for _, o := range l.options {
			rule := "complete -c syncer -n " + at
			for _, name := range o.names {
				if long, ok := strings.CutPrefix(name, "--"); ok {
					rule += " -l " + long
				} else {
					rule += " -s " + name[1:]
				}
			}
			switch {
			case o.isFile():
				rule += " -r -F"
			case len(o.values) > 0:
				rule += " -x -a " + fishQuoted(strings.Join(o.values, " "))
			case takesValue(o):
				rule += " -x"
			}
			fmt.Fprintf(&rules, "%s -d %s\n", rule, fishQuoted(o.usage))
		}
		fmt.Fprintf(&rules, "complete -c syncer -n %s -l help -d 'show help'\n", at)
	}
	inLine := func(s string) string { return strings.NewReplacer(" | \\\n\t\t\t", " ", " | \\\n\t\t", " ").Replace(s) }
	return fmt.Sprintf(fishScript, inLine(patterns(all, takesValue)), inLine(paths(all)), rules.String())
}
