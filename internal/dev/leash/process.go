package leash

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Process is a command in the background.
type Process struct {
	Output string          // file with its stdout and stderr
	Gone   <-chan struct{} // closed when it has ended

	name string
	cmd  *exec.Cmd
	err  error // how it ended; read it after Gone
}

// Start starts a command in the background, which runs until Stop. What it
// prints is appended to a file in the leash's folder.
func (l *Leash) Start(output, path string, args ...string) (*Process, error) {
	file, err := os.OpenFile(filepath.Join(l.dir, output), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	gone := make(chan struct{})
	p := &Process{
		Output: file.Name(),
		Gone:   gone,
		name:   filepath.Base(path) + " " + args[0],
		cmd:    l.Command(context.Background(), path, args...),
	}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(gone)
	}()
	return p, nil
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop asks the process to stop, and kills it if it does not in time. Stopping
// twice does nothing; a process that did not end well is an error.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	select {
	case <-p.Gone:
	case <-time.After(stopPatience):
		_ = p.cmd.Process.Kill()
		<-p.Gone
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.name, p.err)
	}
	return nil
}

// Died is the error of a process that ended by itself, with the end of what it
// said.
func (p *Process) Died() error {
	how := "by itself"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended: %s\n%s", p.name, how, p.LastOutput())
}

// LastOutput is the end of what the process printed.
func (p *Process) LastOutput() string {
	const most = 2000 // bytes
	file, err := os.Open(p.Output)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}
