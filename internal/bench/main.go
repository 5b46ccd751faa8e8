// Command bench measures how fast syncer is and what it costs: it starts a
// throwaway Postgres server, the simulator and syncer itself as processes of
// their own, and compares what comes of it with the targets and with what a
// straight script and the bare database achieve. See the Makefile: make bench,
// make bench-smoke; and docs/performance.md.
//
// It leaves nothing behind but the folder of its results, also after Ctrl-C or
// SIGTERM. Exit codes: 0 measured, whether targets were met or not, 1 something
// could not be measured, 2 wrong usage, 130 stopped by a signal. It needs Linux.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitStopped = 130 // as a shell has it for Ctrl-C
)

// options say what is measured, how big and how often.
type options struct {
	list      bool
	only      []string // names of scenarios; none: all
	runs      int      // how often each thing is measured; 0: as often as it takes by default
	users     int      // the other sizes are in proportion to it
	smoke     bool
	out       string // folder
	syncer    string // the program
	simulator string // the program that simulates the backend
	profiles  bool   // write profiles
	nothing   bool   // serve an empty handler instead
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
	if o.list {
		for _, s := range scenarios {
			fmt.Fprintf(stdout, "%-15s%s\n", s.name, s.about)
		}
		return exitDone
	}
	// The signals stay caught to the end: none of them may skip the clean-up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()
	if o.nothing {
		err = serveNothing(ctx, stdout)
	} else {
		err = newBench(o, stderr).run(ctx, stdout)
	}
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "\nbench: stopped; everything it had started is gone")
		return exitStopped
	default:
		fmt.Fprintln(stderr, "\nbench:", err)
		return exitFailed
	}
}

// What a smoke test measures, once and small: whether the harness works, in a
// minute.
const (
	smokeUsers = 10_000
	smokeRuns  = 1
)

// parse reads the flags; what is wrong with them is told on stderr.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var only string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.list, "list", false, "list the scenarios")
	flags.StringVar(&only, "only", "", "`names` of the scenarios to run, with commas between")
	flags.IntVar(&o.runs, "runs", 0, "`times` that each thing is measured; the default is 5, and 3 where one takes minutes")
	flags.IntVar(&o.users, "users", 1_000_000, "`users` of most scenarios, 10000 to 10000000; the others' are in proportion")
	flags.BoolVar(&o.smoke, "smoke", false, "small and once: whether everything works, not how fast it is")
	flags.StringVar(&o.out, "out", "bin/bench-results", "`folder` for the table and the profiles")
	flags.StringVar(&o.syncer, "syncer", "bin/syncer", "the `program`, of this version or an older one")
	flags.StringVar(&o.simulator, "simulator", "bin/syncer", "the `program` that simulates the backend")
	flags.BoolVar(&o.profiles, "profiles", true, "write profiles; older versions had none")
	flags.BoolVar(&o.nothing, "serve-nothing", false, "serve an empty handler, with which the receiver of hooks is compared; bench starts it itself")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.smoke {
		o.users, o.runs = smokeUsers, smokeRuns
	}
	var err error
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return s.name == name }) {
			err = fmt.Errorf("-only %s: there is no such scenario; see -list", name)
		}
	}
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("bench takes no argument %q", flags.Arg(0))
	case o.users < 10_000 || o.users > 10_000_000:
		err = fmt.Errorf("-users %d: want 10000 to 10000000", o.users)
	case o.runs < 0:
		err = fmt.Errorf("-runs %d: want 1 or more", o.runs)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	return o, err
}
