package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of the times in /proc/PID/stat; Linux has it so on all
// machines that Go runs on.
const clockTick = 10 * time.Millisecond

// procStat is what is read of /proc/PID/stat.
type procStat struct {
	parent int
	own    time.Duration // CPU time of the process
	reaped time.Duration // and that of its children that have ended
}

// parseStat reads the text of /proc/PID/stat. The program's name, the second
// field, may hold spaces and brackets.
func parseStat(text string) (procStat, error) {
	var s procStat
	end := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[end+1:])
	if end < 0 || len(fields) < 15 {
		return s, fmt.Errorf("/proc/PID/stat is not as expected: %q", text)
	}
	// fields[0] is the third of proc(5): state, ppid, …, utime (14th), stime, cutime, cstime.
	var err error
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return s, fmt.Errorf("read the parent in /proc/PID/stat: %w", err)
	}
	var ticks [4]int64
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(fields[11+i], 10, 64); err != nil {
			return s, fmt.Errorf("read the times in /proc/PID/stat: %w", err)
		}
	}
	s.own = time.Duration(ticks[0]+ticks[1]) * clockTick
	s.reaped = time.Duration(ticks[2]+ticks[3]) * clockTick
	return s, nil
}

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(string(text))
}

// processCPU is the CPU time that a process has taken so far.
func processCPU(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	return s.own, err
}

// familyCPU is the CPU time that a process and its children have taken so far,
// those that have ended too.
func familyCPU(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	if err != nil {
		return 0, err
	}
	all := s.own + s.reaped
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		if child, err := parseStat(string(text)); err == nil && child.parent == pid {
			all += child.own + child.reaped
		}
	}
	return all, nil
}

// parsePeak reads the most memory that a process ever had resident, in bytes, in
// the text of /proc/PID/status.
func parsePeak(text string) (int64, error) {
	for line := range strings.Lines(text) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10, nil
		}
	}
	return 0, errors.New("/proc/PID/status has no VmHWM")
}

func peakMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parsePeak(string(text))
}

// watchPeak looks at a process' peak memory until the function that it returns is
// called, which gives it. The figure that the system keeps of an ended process
// would include that of the process which started it.
func watchPeak(pid int) func() int64 {
	stop, ended := make(chan struct{}), make(chan int64)
	go func() {
		var peak int64
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			if bytes, err := peakMemory(pid); err == nil {
				peak = bytes
			}
			select {
			case <-tick.C:
			case <-stop:
				ended <- peak
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-ended }
}

// resetPeak makes peakMemory count from now on.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// firstValue finds a line "name : value" in a file of /proc, "" if it is not
// there.
func firstValue(path, name string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w; this needs Linux", err)
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), nil
		}
	}
	return "", nil
}
