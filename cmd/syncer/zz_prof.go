package main

import (
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"
)

func init() {
	if p := os.Getenv("CPUPROF"); p != "" {
		f, _ := os.Create(p)
		pprof.StartCPUProfile(f)
	}
}

func profStop() {
	_ = signal.Ignored(syscall.SIGUSR2)
	if os.Getenv("CPUPROF") != "" {
		pprof.StopCPUProfile()
		f, _ := os.Create(os.Getenv("CPUPROF") + ".mem")
		runtime.GC()
		pprof.Lookup("allocs").WriteTo(f, 0)
		f.Close()
	}
}
