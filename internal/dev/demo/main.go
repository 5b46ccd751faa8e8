// Command demo shows syncer at work on a machine that has nothing but Go: it
// builds the program, starts a throwaway Postgres server and the simulator of both
// providers, and runs syncer's commands on them. See the Makefile: make demo, make
// demo-keep. It uses pgcluster, leash and lab.
//
// It leaves nothing behind but the page of reports, even after Ctrl-C or SIGTERM.
// Exit codes: 0 shown to the end, 1 failed, 2 wrong usage, 130 stopped by a signal.
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
	"time"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitStopped = 130 // as a shell has it for Ctrl-C
)

// options size the demo.
type options struct {
	users    int           // rows of the users table
	sweeps   int           // scheduled presence runs of each app to wait for
	interval time.Duration // between these, in whole seconds
	days     int           // simulated days
	page     string        // where the HTML page of the reports is kept
	keep     bool          // keep everything running until a signal
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program. It returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		return exitUsage
	}
	// The signals stay caught to the end, so that none of them skips the clean-up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()
	d := &demo{options: o, screen: newScreen(stdout), stderr: stderr}
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(stderr, "\ndemo:", err)
		if errors.Is(err, errStopped) {
			return exitStopped
		}
		return exitFailed
	}
	return exitDone
}

// parse reads the flags. It prints what is wrong with them to stderr.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.keep, "keep", false, "leave everything running to explore, until Ctrl-C")
	flags.IntVar(&o.users, "users", 20_000, "`rows` of the users table, 100 to 1000000")
	flags.IntVar(&o.sweeps, "sweeps", 6, "scheduled presence `sweeps` to watch, at least 2")
	flags.DurationVar(&o.interval, "interval", 5*time.Second, "`time` between these, 1s to 1h in whole seconds")
	flags.IntVar(&o.days, "days", 7, "simulated `days`, 1 to 31")
	flags.StringVar(&o.page, "page", "bin/demo-report.html", "`file` for the page of the reports")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("demo takes no argument %q", flags.Arg(0))
	case o.users < 100 || o.users > 1_000_000:
		err = fmt.Errorf("-users %d: want 100 to 1000000", o.users)
	case o.sweeps < 2:
		err = fmt.Errorf("-sweeps %d: want 2 or more", o.sweeps)
	case o.days < 1 || o.days > 31:
		err = fmt.Errorf("-days %d: want 1 to 31", o.days)
	case o.interval < time.Second || o.interval > time.Hour || o.interval%time.Second != 0:
		err = fmt.Errorf("-interval %v: want whole seconds, 1s to 1h", o.interval)
	}
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
	}
	return o, err
}
