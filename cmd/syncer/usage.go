package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v3"
)

func usageError(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// wrongOption returns the error for an unknown option or a bad value.
func wrongOption(_ context.Context, c *cli.Command, err error, _ bool) error {
	const unknown = "flag provided but not defined: -"
	name, ok := strings.CutPrefix(err.Error(), unknown)
	if !ok {
		return usageError("%s\nsee: %s --help", badValue(err.Error()), c.FullName())
	}
	text := "unknown option " + dashed(name)
	switch suggestion := cli.SuggestFlag(c.VisibleFlags(), name, true); {
	case similar(name, suggestion):
		text += "; did you mean " + suggestion + "?"
	case len(c.Commands) > 1 && len(c.Flags) <= 2: // only help and version
		text += "; options go after the command"
	}
	return usageError("%s\nsee: %s --help", text, c.FullName())
}

// invalidValue matches the library's error for a bad value.
var invalidValue = regexp.MustCompile(`(?s)^invalid value (".*") for flag -(\S+): (.*)$`)

// kinds describes what Go's parsers accept, by the beginning of their errors.
var kinds = []struct{ of, want string }{
	{"strconv.ParseInt", "a whole number"},
	{"strconv.ParseUint", "a whole number that is not negative"},
	{"strconv.ParseFloat", "a number"},
	{"strconv.ParseBool", "true or false"},
	{"time: ", `a duration such as "90s" or "24h"`},
}

// badValue rewrites the error for a bad value in terms of the option.
func badValue(text string) string {
	m := invalidValue.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	value, name, why := m[1], dashed(m[2]), m[3]
	for _, kind := range kinds {
		if strings.HasPrefix(why, kind.of) {
			return fmt.Sprintf("%s %s: want %s", name, value, kind.want)
		}
	}
	return fmt.Sprintf("%s: %s", name, why)
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// similar reports whether a suggestion is plausible: the library always suggests the most
// similar name.
func similar(name, suggestion string) bool {
	suggestion = strings.TrimLeft(suggestion, "-")
	return len(name) > 1 && len(suggestion) > 1 && name[0] == suggestion[0]
}

// unknownCommand is the action of a command that only has subcommands.
func unknownCommand(_ context.Context, c *cli.Command) error {
	var names []string
	for _, sub := range c.VisibleCommands() {
		if sub.Name != "help" {
			names = append(names, sub.Name)
		}
	}
	if name := c.Args().First(); name != "" {
		text := fmt.Sprintf("%q is not a command of %s", name, c.FullName())
		if suggestion := cli.SuggestCommand(c.Commands, name); similar(name, suggestion) {
			text += fmt.Sprintf("; did you mean %q?", suggestion)
		}
		return usageError("%s (allowed: %s)", text, strings.Join(names, ", "))
	}
	if err := cli.ShowSubcommandHelp(c); err != nil {
		return fmt.Errorf("show help: %w", err)
	}
	return &exitError{code: exitUsage, err: errors.New("give a command: " + strings.Join(names, ", "))}
}

// noArgs returns an error if the command has arguments.
func noArgs(c *cli.Command) error {
	if c.Args().Present() {
		return usageError("%s takes no argument %q\nsee: %s --help", c.FullName(), c.Args().First(), c.FullName())
	}
	return nil
}
