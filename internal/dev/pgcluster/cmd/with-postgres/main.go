// Command with-postgres runs a command while a throwaway Postgres server is up:
//
//	with-postgres -- go test ./...
//
// The command finds the server's address in SYNCER_TEST_DATABASE_URL, gets the
// signals that with-postgres gets, and no standard input. Afterwards the server
// is removed, and with-postgres exits with the command's code, or 128 and the
// signal's number when a signal ended it. A missing server is installed if the
// system's package manager allows it.
//
// If SYNCER_TEST_DATABASE_URL is set already, that server is used and left alone.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"syncer/internal/dev/pgcluster"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: with-postgres -- command [argument...]")
		os.Exit(exitUsage)
	}
	code, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "with-postgres:", err)
		code = exitFailed
	}
	os.Exit(code)
}

// run returns the command's exit code, or an error of our own.
func run(args []string) (code int, err error) {
	// Signals are caught from here on, so that none of them skips the clean-up.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)

	env := append(os.Environ(), fmt.Sprintf("%s=%d_%s", pgcluster.EnvRun, time.Now().Unix(), strings.ToLower(rand.Text()[:8])))
	if os.Getenv(pgcluster.EnvURL) == "" {
		cluster, startErr := start(signals)
		if startErr != nil {
			return 0, startErr
		}
		defer func() { err = errors.Join(err, cluster.Stop()) }()
		env = append(env, pgcluster.EnvURL+"="+cluster.URL("postgres"))
	}
	return runCommand(args, env, signals)
}

// start starts the cluster; a signal calls it off.
func start(signals <-chan os.Signal) (*pgcluster.Cluster, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var cluster *pgcluster.Cluster
	started := make(chan error, 1)
	go func() {
		var err error
		cluster, err = installAndStart(ctx)
		started <- err
	}()
	select {
	case err := <-started:
		return cluster, err
	case s := <-signals:
		cancel()
		err := fmt.Errorf("called off by a signal: %v", s)
		if <-started == nil {
			err = errors.Join(err, cluster.Stop())
		}
		return nil, err
	}
}

func installAndStart(ctx context.Context) (*pgcluster.Cluster, error) {
	bin, err := pgcluster.FindOrInstall(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	return pgcluster.Start(ctx, pgcluster.Options{Binaries: bin})
}

// runCommand runs the command to its end and returns its exit code.
func runCommand(args, env []string, signals <-chan os.Signal) (int, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A process group of its own: Ctrl-C reaches it once, through us, and not a
	// second time from the terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = syscall.Kill(-cmd.Process.Pid, s.(syscall.Signal)) // fails only when it has ended
		case err := <-ended:
			return exitCode(err)
		}
	}
}

// exitCode turns the end of a command into the code that a shell would give it.
func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}
