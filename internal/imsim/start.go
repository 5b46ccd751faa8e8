package imsim

import (
	"context"
	"fmt"
	"net"
)

// Local is a Server that serves on a port of this machine.
type Local struct {
	*Server
	URL string // http://host:port

	cancel context.CancelFunc
	served chan error
}

// Start serves what c says on a free port of host. Close it.
func Start(c Config, host string) (*Local, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("serve the simulator: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Local{Server: New(c), URL: "http://" + listener.Addr().String(), cancel: cancel, served: make(chan error, 1)}
	go func() { l.served <- l.Serve(ctx, listener) }()
	return l, nil
}

// Close ends calls that hang in a fault, and stops serving.
func (l *Local) Close() error {
	l.ClearFaults()
	l.cancel()
	return <-l.served
}
