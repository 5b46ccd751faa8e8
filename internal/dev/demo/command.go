package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"syncer/internal/dev/leash"
)

func (d *demo) syncer() string { return filepath.Join(d.dir, "syncer") }

// build compiles the program into the demo's folder.
func (d *demo) build(ctx context.Context) error {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("build the program: %w; put the go command into PATH", err)
	}
	cmd := d.leash.Command(ctx, goTool, "build", "-buildvcs=false", "-o", d.syncer(), "syncer/cmd/syncer")
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
	cmd := d.leash.Command(ctx, d.syncer(), args...)
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

// startSyncer starts a command of syncer in the background, its output in a file
// of the demo's folder. It runs until it is stopped.
func (d *demo) startSyncer(output string, args ...string) (*leash.Process, error) {
	p, err := d.leash.Start(output, d.syncer(), args...)
	if err == nil {
		d.atEnd(p.Stop)
	}
	return p, err
}
