// Command syncer records in Postgres who is online in an instant-messaging system, on which
// device and since when, and which accounts are imported.
//
// Each file is a command: its flags, one call, and what it prints. Packages jobs and repo do
// the work; provider.go and setup.go connect them.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"syncer/internal/build"
)

// Exit codes.
const (
	exitDone    = 0 // done and complete
	exitFailed  = 1 // failed or stopped
	exitUsage   = 2 // wrong usage or configuration
	exitPartial = 3 // done, but some users failed
)

// exitError ends the program with an exit code and a message for the user.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// program is what the commands share: their output and environment.
type program struct {
	stdout  io.Writer
	stderr  *messages
	environ []string
}

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr, os.Environ()))
}

// run executes a command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer, environ []string) int {
	ctx, stop := stopSignal()
	defer stop()
	p := &program{stdout: stdout, stderr: &messages{w: stderr}, environ: environ}
	err := p.command().Run(ctx, args)
	if err == nil {
		return exitDone
	}
	code := exitFailed
	if exit, ok := errors.AsType[*exitError](err); ok {
		code = exit.code
	} else if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("stopped")
	}
	p.stderr.fail(distinctLines(err.Error()))
	return code
}

// distinctLines removes repeated lines: the driver reports an address twice that it tried
// with and without TLS.
func distinctLines(text string) string {
	return strings.Join(slices.Compact(strings.Split(text, "\n")), "\n")
}

// stopSignal returns a context that the first SIGINT or SIGTERM cancels, for an orderly
// stop. A later signal ends the process at once, except within a second: a terminal and a
// parent process often both send it.
func stopSignal() (context.Context, context.CancelFunc) {
	const sameSignal = time.Second
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			cancel()
			time.Sleep(sameSignal)
			signal.Stop(signals)
		case <-ctx.Done():
			signal.Stop(signals)
		}
	}()
	return ctx, cancel
}

func (p *program) command() *cli.Command {
	root := &cli.Command{
		Name:      "syncer",
		Usage:     "keeps in Postgres who is online in an instant-messaging system, on which device, since when",
		Writer:    p.stdout,
		ErrWriter: p.stderr.w,
		Version:   build.Read().String(),
		Description: "Exit codes: 0 done and complete, 1 failed or stopped, 2 wrong usage or configuration, " +
			"3 done, but some users failed." +
			examples("syncer config check --connect", "syncer migrate up", "syncer backfill", "syncer run"),
		Commands: []*cli.Command{
			p.runCommand(),
			p.backfillCommand(),
			p.migrateCommand(),
			p.configCommand(),
			p.appCommand(),
			p.runsCommand(),
			p.explainCommand(),
			p.reportCommand(),
			p.archiveCommand(),
			p.forgetCommand(),
			p.webCommand(),
			p.usersViewCommand(),
			p.grantReaderCommand(),
			p.grantWorkerCommand(),
			p.repairClockCommand(),
			p.simulateCommand(),
			p.completionCommand(),
			p.manCommand(),
			p.versionCommand(),
		},
	}
	root.Action = unknownCommand
	cli.HelpPrinter = p.printHelp
	// run prints errors, and returns their exit code.
	var quiet func(*cli.Command)
	quiet = func(c *cli.Command) {
		c.ExitErrHandler = func(context.Context, *cli.Command, error) {}
		c.OnUsageError = wrongOption
		for _, sub := range c.Commands {
			quiet(sub)
		}
		if c.Action == nil {
			c.Action = unknownCommand
		}
	}
	quiet(root)
	return root
}
