// Command with-postgres runs a command with a throwaway Postgres server:
//
//	with-postgres -- go test ./...
//
// The command finds the server in SYNCER_TEST_DATABASE_URL, receives the signals of
// with-postgres, and has no standard input. The exit code is the command's, or 128
// and the signal's number if a signal ended it. A missing server is installed if the
// package manager permits it.
//
// If SYNCER_TEST_DATABASE_URL is already set, that server is used and left running.
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

// run returns the command's exit code, or an error of with-postgres itself.
func run(args []string) (code int, err error) {
	// From here on signals are caught, so that none skips the clean-up.
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

// start starts the cluster, unless a signal arrives first.
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

// runCommand runs the command and returns its exit code.
func runCommand(args, env []string, signals <-chan os.Signal) (int, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Its own process group, so that Ctrl-C reaches it once, from here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = syscall.Kill(-cmd.Process.Pid, s.(syscall.Signal)) // fails only if it has ended
		case err := <-ended:
			return exitCode(err)
		}
	}
}

// exitCode returns the exit code that a shell would report.
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
