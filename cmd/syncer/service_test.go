package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// listenNotify returns the address of a service manager's socket, and the messages that it
// receives.
func listenNotify(t *testing.T) (address string, received <-chan string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // a socket's name has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	messages := make(chan string, 1000)
	go func() {
		message := make([]byte, 1024)
		for {
			n, err := socket.Read(message)
			if err != nil {
				return
			}
			messages <- string(message[:n])
		}
	}()
	return socket.LocalAddr().String(), messages
}

// TestKeepWatchdog: while the engine is stuck the watchdog is not notified, and the log
// says so once.
func TestKeepWatchdog(t *testing.T) {
	address, received := listenNotify(t)
	t.Setenv("NOTIFY_SOCKET", address)
	t.Setenv("WATCHDOG_USEC", "3000")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var alive atomic.Bool
	alive.Store(true)
	looks := make(chan struct{})
	var log bytes.Buffer
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&service{log: zerolog.New(&log)}).keepWatchdog(ctx, func() bool {
			select {
			case looks <- struct{}{}:
			case <-ctx.Done():
			}
			return alive.Load()
		})
	}()
	look := func(times int) {
		t.Helper()
		for range times {
			select {
			case <-looks:
			case <-ctx.Done():
				t.Fatal("the watchdog is not looked after")
			}
		}
	}
	look(3)
	alive.Store(false)
	look(20)
	alive.Store(true)
	look(4)
	cancel()
	<-ended
	(&service{}).notify("END")
	sent := 0
	for message := ""; message != "END"; {
		select {
		case message = <-received:
			if message == "WATCHDOG=1" {
				sent++
			}
		case <-time.After(10 * time.Minute):
			t.Fatal("END is not received")
		}
	}
	// The look during which a value changed may have seen either.
	if n := sent; n < 5 || n > 9 {
		t.Errorf("%d signs of life for 7 looks at what lives, and 20 at what is stuck", n)
	}
	if n := strings.Count(log.String(), "the engine is stuck"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}
