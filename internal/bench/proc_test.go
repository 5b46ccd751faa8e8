package main

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const text = "4242 (a name) with ) 1) S 17 4242 4242 0 -1 4194304 9 8 7 6 150 25 1000 500 20 0 11 0 99\n"
	got, err := parseStat(text)
	if err != nil {
		t.Fatal(err)
	}
	want := procStat{parent: 17, own: 1750 * time.Millisecond, reaped: 15 * time.Second}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(procStat{})); diff != "" {
		t.Errorf("parsed (-want +got):\n%s", diff)
	}
	for _, text := range []string{"", "1 (x) S 1 2", "1 (x) S x 1 1 0 -1 0 0 0 0 0 1 1 1 1 20\n", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 1 1 x 1 20\n"} {
		if got, err := parseStat(text); err == nil {
			t.Errorf("parseStat(%q) gives %v", text, got)
		}
	}
}

func TestParsePeak(t *testing.T) {
	got, err := parsePeak("Name:\tsyncer\nVmPeak:\t  900 kB\nVmHWM:\t   65536 kB\nVmRSS:\t 10 kB\n")
	if err != nil || got != 64<<20 {
		t.Errorf("parsePeak: %d, %v", got, err)
	}
	if _, err := parsePeak("Name:\tkthreadd\n"); err == nil {
		t.Error("a process without memory has a peak")
	}
}

// TestProcesses reads real ones: this one, and a child that has ended counts for
// its family alone.
func TestProcesses(t *testing.T) {
	before, err := familyCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("/bin/sh", "-c", `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done`)
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := familyCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	took := child.ProcessState.UserTime() + child.ProcessState.SystemTime()
	if after-before < took-2*clockTick {
		t.Errorf("the family has taken %s, and the child alone %s", after-before, took)
	}
	own, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if own > after {
		t.Errorf("the process has taken %s, more than with its children, %s", own, after)
	}
	if err := resetPeak(os.Getpid()); err != nil {
		t.Error(err)
	}
	if peak, err := peakMemory(os.Getpid()); err != nil || peak < 1<<20 {
		t.Errorf("peakMemory: %d, %v", peak, err)
	}
}
