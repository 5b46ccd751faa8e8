package main

import (
	"context"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
)

// service is the service manager that started the process: systemd, or any
// other that sets NOTIFY_SOCKET. Without one all its methods do nothing.
type service struct {
	log zerolog.Logger
	// failed makes that a socket which does not work is said once.
	failed sync.Once
}

func (s *service) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.failed.Do(func() { s.log.Warn().Err(err).Msg("the service manager cannot be told how it goes") })
	}
}

// ready says that the daemon works, after its start or after a reload; status is for
// who asks the manager.
func (s *service) ready(status string) { s.tell(daemon.SdNotifyReady + "\nSTATUS=" + status) }

func (s *service) reloading() {
	s.tell(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

func (s *service) stopping() { s.tell(daemon.SdNotifyStopping) }

// keepWatchdog gives signs of life until ctx ends, as often as the manager wants
// them, as long as alive says so. Without them the manager starts the process
// anew.
func (s *service) keepWatchdog(ctx context.Context, alive func() bool) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn().Err(err).Msg("the service manager's watchdog is not served")
	}
	if within == 0 {
		return
	}
	ticker := time.NewTicker(within / 3)
	defer ticker.Stop()
	for was := true; ; {
		is := alive()
		if is {
			s.tell(daemon.SdNotifyWatchdog)
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
