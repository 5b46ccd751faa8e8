package main

import (
	"context"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
)

// service notifies the service manager: systemd, or any other that sets NOTIFY_SOCKET.
// Without one the methods do nothing.
type service struct {
	log zerolog.Logger
	// failed limits the warning about an unusable socket to one.
	failed sync.Once
}

func (s *service) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.failed.Do(func() { s.log.Warn().Err(err).Msg("the service manager cannot be notified") })
	}
}

// ready reports that the daemon works, after its start or a reload. The manager shows
// status to operators.
func (s *service) ready(status string) { s.notify(daemon.SdNotifyReady + "\nSTATUS=" + status) }

func (s *service) reloading() {
	s.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

func (s *service) stopping() { s.notify(daemon.SdNotifyStopping) }

// keepWatchdog notifies the manager's watchdog until ctx ends, while alive returns true.
// Without notifications the manager restarts the process.
func (s *service) keepWatchdog(ctx context.Context, alive func() bool) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn().Err(err).Msg("the service manager's watchdog is not notified")
	}
	if within == 0 {
		return
	}
	ticker := time.NewTicker(within / 3)
	defer ticker.Stop()
	for was := true; ; {
		is := alive()
		if is {
			s.notify(daemon.SdNotifyWatchdog)
		} else if was {
			s.log.Error().Dur("watchdog_ms", within).Msg("the engine is stuck; the service manager's watchdog will end this process")
		}
		was = is
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
