package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"syncer/internal/config"
	"syncer/internal/report"
)

// messages is what the program writes to stderr: its log, notices and the error that ends
// it. Either every line is text, or every line is a JSON object.
type messages struct {
	w    io.Writer
	json bool // false before the configuration is loaded
}

// daemons are the commands that run until they are stopped. A program reads their messages
// if stderr is not a terminal.
var daemons = []string{"run", "web"}

// configure sets the format of all later messages of a command.
func (m *messages) configure(c config.Log, command string) {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	zerolog.DurationFieldUnit = time.Millisecond
	m.json = c.Format == "json" || c.Format == "auto" && slices.Contains(daemons, command) && !m.terminal()
}

func (m *messages) terminal() bool { return isTerminal(m.w) }

// notice writes a message that is no part of the log.
func (m *messages) notice(text string) { m.write(zerolog.LevelInfoValue, "", text) }

// fail writes the error that ends the program.
func (m *messages) fail(text string) { m.write(zerolog.LevelErrorValue, "syncer: ", text) }

// write writes a message whatever the level of the log is. prefix is for text only.
func (m *messages) write(level, prefix, text string) {
	text = report.PrintableLines(text)
	if m.json {
		log := zerolog.New(m.w)
		log.Log().Str(zerolog.LevelFieldName, level).Timestamp().Msg(text)
		return
	}
	fmt.Fprintf(m.w, "%s%s\n", prefix, text)
}

// logger returns a log in the format of the messages, after logging warnings of the
// configuration. It writes to w, which prints to stderr.
func (m *messages) logger(c config.Log, warnings []string, w io.Writer) zerolog.Logger {
	if !m.json {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05", NoColor: !m.terminal()}
	}
	log := zerolog.New(w).Level(level(c)).With().Timestamp().Logger()
	for _, warning := range warnings {
		log.Warn().Msg(warning)
	}
	return log
}

func level(c config.Log) zerolog.Level {
	l, err := zerolog.ParseLevel(c.Level)
	if err != nil {
		return zerolog.InfoLevel
	}
	return l
}
