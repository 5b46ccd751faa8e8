package main

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// machine describes where and how it is measured, as one line or two.
func machine(postgres string, o options, settings map[string]string) (string, error) {
	model, err := firstValue("/proc/cpuinfo", "model name")
	if err != nil {
		return "", err
	}
	if model == "" {
		model = runtime.GOARCH
	}
	memory, err := firstValue("/proc/meminfo", "MemTotal")
	if err != nil {
		return "", err
	}
	kilobytes, err := strconv.ParseInt(strings.TrimSuffix(memory, " kB"), 10, 64)
	if err != nil {
		return "", fmt.Errorf("read the size of the memory: %w", err)
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	var set []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		set = append(set, name+" "+settings[name])
	}
	note := ""
	if o.smoke {
		note = "\nA smoke test: too small and too short for the figures to mean anything."
	}
	return fmt.Sprintf("%s; %d cores (%s), %d GB of memory, Linux %s, %s; Postgres %s, fsync on, %s.\n"+
		"%s users where nothing else is said. Postgres, simulator and syncer share the machine.%s",
		time.Now().Format(time.DateOnly), runtime.NumCPU(), model, (kilobytes+1<<19)>>20, strings.TrimSpace(string(kernel)), runtime.Version(),
		postgres, strings.Join(set, ", "), thousands(float64(o.users)), note), nil
}
