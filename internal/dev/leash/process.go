package leash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Process is a command that runs in the background.
type Process struct {
	Output string          // path of the file that gets stdout and stderr
	Gone   <-chan struct{} // closed when the process has ended

	cmd    *exec.Cmd
	offset int64 // of Output, at the start
	err    error // how it ended; read it after Gone
}

// Start starts a command in the background, with its output appended to a file.
func Start(cmd *exec.Cmd, output string) (*Process, error) {
	file, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	p := &Process{Output: output, Gone: gone, cmd: cmd, offset: info.Size()}
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name(), err)
	}
	go func() {
		p.err = cmd.Wait()
		close(gone)
	}()
	return p, nil
}

// name returns the program and its first argument.
func (p *Process) name() string {
	return strings.Join(append([]string{filepath.Base(p.cmd.Path)}, p.cmd.Args[1:min(2, len(p.cmd.Args))]...), " ")
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.Gone:
		return false
	default:
		return true
	}
}

// Stop sends SIGTERM, and SIGKILL if the process does not end in time. It returns
// an error if the process did not end with exit code 0. A second Stop has no effect.
func (p *Process) Stop() error {
	p.End(stopPatience, syscall.SIGTERM, syscall.SIGKILL)
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.name(), p.err)
	}
	return nil
}

// End sends signals one after the other, each after patience, until the process
// has ended. The last one should be SIGKILL.
func (p *Process) End(patience time.Duration, signals ...syscall.Signal) {
	for _, signal := range signals {
		_ = p.cmd.Process.Signal(signal) // fails only if it has ended
		select {
		case <-p.Gone:
			return
		case <-time.After(patience):
		}
	}
	<-p.Gone
}

// Died returns the error of a process that ended without Stop. The error holds the
// end of the output.
func (p *Process) Died() error {
	err := p.err
	if err == nil {
		err = errors.New("by itself")
	}
	return fmt.Errorf("%s ended: %w\n%s", p.name(), err, p.LastOutput())
}

// AwaitOutput waits until the process has printed a match of what, and returns the
// match, or its first group if there is one.
func (p *Process) AwaitOutput(ctx context.Context, what *regexp.Regexp) (string, error) {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if found := what.FindStringSubmatch(p.LastOutput()); found != nil {
			return found[len(found)-1], nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-p.Gone:
			return "", p.Died()
		case <-poll.C:
		}
	}
}

// LastOutput returns the last 4 kB that the process printed.
func (p *Process) LastOutput() string {
	const most = 4000
	file, err := os.Open(p.Output)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(io.NewSectionReader(file, max(p.offset, info.Size()-most), most))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}
