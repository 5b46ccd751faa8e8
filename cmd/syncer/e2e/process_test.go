package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a run of syncer.
type process struct {
	world  *world
	args   []string
	cmd    *exec.Cmd
	stdout buffer
	stderr buffer
	gone   chan struct{} // closed when it has ended
}

// buffer collects what a process prints while others read it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// goRace keeps programs built with the race detector from sleeping a second
// before they exit.
const goRace = "GORACE=atexit_sleep_ms=0"

// start starts syncer in the world's folder. Arguments before the command that
// have the form KEY=value are its environment.
func (w *world) start(args ...string) *process {
	w.t.Helper()
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, goRace}
	for len(args) > 0 && strings.Contains(args[0], "=") {
		env, args = append(env, args[0]), args[1:]
	}
	command := append([]string{w.program}, args...)
	if w.onHost != "" {
		command = append([]string{"ip", "netns", "exec", w.onHost}, command...)
	}
	p := &process{world: w, args: args, cmd: exec.Command(command[0], command[1:]...), gone: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = w.dir, env, &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code is looked at by wait
		w.printed(p.stdout.String() + p.stderr.String())
		close(p.gone)
	}()
	w.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // fails when it has ended
		<-p.gone
	})
	return p
}

// signal sends a signal to the process.
func (p *process) signal(s syscall.Signal) {
	p.world.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.world.t.Fatalf("syncer %v: %v", p.args, err)
	}
}

// kill ends the process as a crash does.
func (p *process) kill() {
	p.world.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.gone
}

// wait waits until the process has ended, and checks its exit code.
func (p *process) wait(code int) (stdout, stderr string) {
	p.world.t.Helper()
	select {
	case <-p.gone:
	case <-p.world.ctx.Done():
		p.world.t.Fatalf("syncer %v does not end\n%s", p.args, p.stderr.String())
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.world.t.Fatalf("syncer %v ended with %d, want %d\n%s%s", p.args, got, code, p.stdout.String(), p.stderr.String())
	}
	return p.stdout.String(), p.stderr.String()
}

// run runs syncer to its end.
func (w *world) run(code int, args ...string) (stdout, stderr string) {
	w.t.Helper()
	return w.start(args...).wait(code)
}

// said waits until the process has printed the text to stderr.
func (p *process) said(text string) {
	p.world.t.Helper()
	p.world.eventually("syncer says "+text, func() bool {
		select {
		case <-p.gone:
			if !strings.Contains(p.stderr.String(), text) {
				p.world.t.Fatalf("syncer %v ended without saying %q\n%s", p.args, text, p.stderr.String())
			}
		default:
		}
		return strings.Contains(p.stderr.String(), text)
	})
}

var adminAddress = regexp.MustCompile(`"address":"([^"]+)"`)

// daemon starts a daemon and waits until it works.
func (w *world) daemon(args ...string) *process {
	w.t.Helper()
	p := w.start(append(args, "run")...)
	p.said(`"message":"running"`)
	return p
}

// admin is the address of a daemon's health and readiness.
func (p *process) admin() string {
	p.world.t.Helper()
	found := adminAddress.FindStringSubmatch(p.stderr.String())
	if found == nil {
		p.world.t.Fatalf("syncer %v does not say where it serves\n%s", p.args, p.stderr.String())
	}
	return "http://" + found[1]
}

// stop asks a daemon to end, and checks that it does so in good order.
func (p *process) stop() {
	p.world.t.Helper()
	p.signal(syscall.SIGTERM)
	_, stderr := p.wait(exitDone)
	if strings.Contains(stderr, "did not stop in time") {
		p.world.t.Errorf("syncer %v: %s", p.args, stderr)
	}
}

// wantText checks that a text holds others.
func wantText(t testing.TB, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
}

// exitCode is that of a process that has ended; -1 when it was killed or did
// not start.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// soon is what "at once" may take on a slow and busy machine.
const soon = 2 * time.Minute
