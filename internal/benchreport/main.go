// Command benchreport measures what reports cost: it starts a throwaway Postgres
// server, fills it with a realistic history, rolls its days up, and times the
// program's reports, the queries of an analyst and the questions of docs/reporting.md
// beside their target, and what the indexes for them cost a sweep. See the Makefile:
// make bench-report.
//
// It leaves nothing behind but the table that it prints, also after Ctrl-C or
// SIGTERM. Exit codes: 0 measured, 1 failed or a median is above its target (see
// -lenient), 2 wrong usage, 130 stopped by a signal.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitStopped = 130 // as a shell has it for Ctrl-C
)

// options size the history and say where things are.
type options struct {
	users, days int
	repeat      int    // how often each thing is timed, after a first time that does not count
	lenient     bool   // a median above its target is no failure
	syncer      string // the program
	page        string // holds the documented questions
	output      string // file for the table
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		return exitUsage
	}
	// The signals stay caught to the end: none of them may skip the clean-up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()
	b := &bench{options: o, progress: stderr}
	err = b.run(ctx, stdout)
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "\nbenchreport: stopped; everything it had started is gone")
		return exitStopped
	default:
		fmt.Fprintln(stderr, "\nbenchreport:", err)
		return exitFailed
	}
}

// parse reads the flags; what is wrong with them is told on stderr.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("benchreport", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.users, "users", 50_000, "`users` of the history, 1000 to 1000000")
	flags.IntVar(&o.days, "days", 30, "`days` of the history, 8 to 365")
	flags.IntVar(&o.repeat, "repeat", 3, "`times` that each thing is timed, at least 1")
	flags.BoolVar(&o.lenient, "lenient", false, "exit with 0 also if a median is above its target")
	flags.StringVar(&o.syncer, "syncer", "bin/syncer", "the `program`")
	flags.StringVar(&o.page, "page", "docs/reporting.md", "`file` with the documented questions")
	flags.StringVar(&o.output, "output", "bin/bench-report.md", "`file` for the table")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("benchreport takes no argument %q", flags.Arg(0))
	case o.users < 1000 || o.users > 1_000_000:
		err = fmt.Errorf("-users %d: want 1000 to 1000000", o.users)
	case o.days < 8 || o.days > 365:
		err = fmt.Errorf("-days %d: want 8 to 365", o.days)
	case o.repeat < 1:
		err = fmt.Errorf("-repeat %d: want 1 or more", o.repeat)
	}
	if err != nil {
		fmt.Fprintln(stderr, "benchreport:", err)
	}
	return o, err
}
