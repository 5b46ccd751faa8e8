// Command benchsize measures how big syncer's tables grow: it starts a throwaway
// Postgres server and simulated backends, sweeps users of whom a known share
// changes from sweep to sweep with the real engine, and looks at tables, indexes
// and the write-ahead log. See the Makefile: make bench-size.
//
// It leaves nothing behind but the page that it prints, also after Ctrl-C or
// SIGTERM. Exit codes: 0 measured, 1 failed, 2 wrong usage, 130 stopped by a signal.
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

// options size the measurement.
type options struct {
	users  int    // of each of the two apps
	sweeps int    // at each share of changes
	output string // file for the page
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
		fmt.Fprintln(stderr, "\nbenchsize: stopped; everything it had started is gone")
		return exitStopped
	default:
		fmt.Fprintln(stderr, "\nbenchsize:", err)
		return exitFailed
	}
}

// parse reads the flags; what is wrong with them is told on stderr.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("benchsize", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.users, "users", 100_000, "`users` of each of the two apps, 1000 to 1000000")
	flags.IntVar(&o.sweeps, "sweeps", 5, "`sweeps` at each share of changes, between two checkpoints; at least 1")
	flags.StringVar(&o.output, "output", "bin/bench-size.md", "`file` for the page")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("benchsize takes no argument %q", flags.Arg(0))
	case o.users < 1000 || o.users > 1_000_000:
		err = fmt.Errorf("-users %d: want 1000 to 1000000", o.users)
	case o.sweeps < 1:
		err = fmt.Errorf("-sweeps %d: want 1 or more", o.sweeps)
	}
	if err != nil {
		fmt.Fprintln(stderr, "benchsize:", err)
	}
	return o, err
}
