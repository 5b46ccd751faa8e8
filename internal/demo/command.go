package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopPatience is how long a program may take to heed SIGTERM before it is
// killed. The daemon grants pages in flight 20 s.
const stopPatience = 30 * time.Second

// command prepares a program that runs in the demo's folder. When ctx ends it is
// asked to stop, and killed if it does not.
func (d *demo) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = d.dir
	cmd.Env = cleanEnv(os.Environ())
	d.leash.take(cmd)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopPatience
	return cmd
}

// cleanEnv leaves out what is meant for another syncer or Postgres.
func cleanEnv(environ []string) []string {
	var clean []string
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "SYNCER_") && !strings.HasPrefix(variable, "PG") {
			clean = append(clean, variable)
		}
	}
	return clean
}

func (d *demo) syncer() string { return filepath.Join(d.dir, "syncer") }

// build compiles the program into the demo's folder.
func (d *demo) build(ctx context.Context) error {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("build the program: %w; put the go command into PATH", err)
	}
	cmd := d.command(ctx, goTool, "build", "-buildvcs=false", "-o", d.syncer(), "syncer/cmd/syncer")
	cmd.Dir = ""                                 // the module's
	cmd.Env = append(cmd.Env, "GOTMPDIR="+d.dir) // goes with the folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build syncer/cmd/syncer (run the demo inside syncer's source): %w\n%s", err, out)
	}
	return nil
}

// runSyncer shows and runs a command of syncer to its end, with its output on
// ours, and gives its exit code.
func (d *demo) runSyncer(ctx context.Context, args ...string) (code int, err error) {
	d.screen.prompt("syncer " + strings.Join(args, " "))
	cmd := d.command(ctx, d.syncer(), args...)
	cmd.Stdout, cmd.Stderr = d.screen.out, d.stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() && ctx.Err() == nil {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("syncer %s: %w", strings.Join(args, " "), err)
	}
	return 0, nil
}

// mustRunSyncer is runSyncer for a command that has to end with exit code 0.
func (d *demo) mustRunSyncer(ctx context.Context, args ...string) error {
	code, err := d.runSyncer(ctx, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("syncer %s ended with exit code %d", strings.Join(args, " "), code)
	}
	return err
}

// process is a command of syncer in the background.
type process struct {
	name   string
	cmd    *exec.Cmd
	output string        // file with its stdout and stderr
	gone   chan struct{} // closed when it has ended
	err    error         // how it ended; read it after gone
}

// startSyncer starts a command of syncer in the background, its output in a file
// of the demo's folder. It runs until stop.
func (d *demo) startSyncer(output string, args ...string) (*process, error) {
	file, err := os.OpenFile(filepath.Join(d.dir, output), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &process{
		name:   "syncer " + args[0],
		cmd:    d.command(context.Background(), d.syncer(), args...),
		output: file.Name(),
		gone:   make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.gone)
	}()
	d.atEnd(p.stop)
	return p, nil
}

// stop asks the process to stop, and kills it if it does not in time. Stopping
// twice does nothing; a process that did not end well is an error.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	select {
	case <-p.gone:
	case <-time.After(stopPatience):
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.name, p.err)
	}
	return nil
}

// died is the error of a process that ended by itself, with the end of what it
// said.
func (p *process) died() error {
	how := "by itself"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended: %s\n%s", p.name, how, p.lastOutput())
}

// lastOutput is the end of what the process printed.
func (p *process) lastOutput() string {
	const most = 2000 // bytes
	file, err := os.Open(p.output)
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
