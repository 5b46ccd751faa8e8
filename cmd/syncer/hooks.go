package main

import (
	"context"
	"fmt"
	"net"

	"syncer/imclient"
	"syncer/imclient/openim"
	"syncer/imclient/tencent"
	"syncer/internal/config"
	"syncer/internal/hooks"
	"syncer/jobs"
)

func tencentHooks(c config.App) func(imclient.HookRequest) ([]imclient.Hook, error) {
	return tencent.Hooks{SDKAppID: uint32(c.Tencent.SDKAppID), Token: c.Tencent.HookToken.Reveal()}.Read
}

func openIMHooks(c config.App) func(imclient.HookRequest) ([]imclient.Hook, error) {
	return openim.Hooks{Secret: c.OpenIM.HookSecret.Reveal()}.Read
}

// receiving is the receiver of hooks while it serves. A nil one is off.
type receiving struct {
	certificate *hooks.Certificate // nil without TLS
	cancel      context.CancelFunc
	stopped     chan struct{}
	failed      chan error // receives the error of a server that failed
}

// serveHooks receives hooks until stop, or until ctx ends. It returns nil if hooks are off.
func (s *system) serveHooks(ctx context.Context, engine *jobs.Engine) (*receiving, error) {
	c := s.config.Hooks
	if c.Listen == "" {
		return nil, nil
	}
	receiver := &hooks.Receiver{Now: s.store.Now, Metrics: hooks.NewMetrics(s.metrics), Log: s.log}
	for i, app := range s.config.Apps {
		provider := providers[app.Provider]
		receiver.Apps = append(receiver.Apps, hooks.App{
			Name: app.Name, Read: provider.readHook(app), Answer: provider.hookAnswer, Tell: engine.Hints(s.apps[i].ID).Tell,
		})
	}
	if c.TLSCert != "" {
		var err error
		if receiver.Certificate, err = hooks.LoadCertificate(c.TLSCert, c.TLSKey); err != nil {
			return nil, fmt.Errorf("%w\ncheck [hooks] tls_cert and tls_key", err)
		}
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for hooks: %w\ncheck [hooks] listen (\"\" turns it off)", err)
	}
	r := &receiving{certificate: receiver.Certificate, stopped: make(chan struct{}), failed: make(chan error, 1)}
	ctx, r.cancel = context.WithCancel(ctx)
	go func() {
		defer close(r.stopped)
		if err := receiver.Serve(ctx, listener); err != nil {
			r.failed <- err
		}
	}()
	s.log.Info().Stringer("address", listener.Addr()).Msg("receiving hooks")
	return r, nil
}

// failure returns what receives the error of a receiver that failed.
func (r *receiving) failure() <-chan error {
	if r == nil {
		return nil
	}
	return r.failed
}

// stop ends the receiver. It returns when the hooks in flight are answered.
func (r *receiving) stop() {
	if r != nil {
		r.cancel()
		<-r.stopped
	}
}

// reload reads a renewed certificate. If it cannot, the previous one stays in force.
func (r *receiving) reload() error {
	if r == nil || r.certificate == nil {
		return nil
	}
	return r.certificate.Load()
}

// describeHooks prints how hooks are received, and how each provider is made to send them.
func (p *program) describeHooks(c *config.Config) {
	if c.Hooks.Listen == "" {
		return
	}
	scheme := "http"
	if c.Hooks.TLSCert != "" {
		scheme = "https"
	}
	host, port, _ := net.SplitHostPort(c.Hooks.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "THIS-HOST"
	}
	p.say("hooks on %s, by %s; the addresses below are those of this listener: behind a proxy use the proxy's", c.Hooks.Listen, scheme)
	for _, app := range c.Apps {
		for _, line := range providers[app.Provider].hookSetup(app, scheme+"://"+net.JoinHostPort(host, port)+"/hooks/"+app.Name) {
			p.say("%s", line)
		}
	}
}

func tencentHookSetup(c config.App, url string) []string {
	if c.Tencent.HookToken == "" {
		return []string{fmt.Sprintf("app %s: hooks are refused; to receive them, set hook_token_file", c.Name)}
	}
	return []string{
		fmt.Sprintf("app %s: in Tencent's console, switch on the user status query and status change notification (feature configuration), and set", c.Name),
		"    callback URL              " + url,
		"    authentication            on, with the token of hook_token",
		"    callback                  State.StateChange (status change)",
	}
}

func openIMHookSetup(c config.App, url string) []string {
	if c.OpenIM.HookSecret == "" {
		return []string{fmt.Sprintf("app %s: hooks are refused; to receive them, set hook_secret_file", c.Name)}
	}
	return []string{
		fmt.Sprintf("app %s: in OpenIM's webhooks.yml, with the content of hook_secret as the last part of the url", c.Name),
		"    url: " + url + "/HOOK-SECRET",
		"    afterUserOnline:",
		"      enable: true",
		"      timeout: 5",
		"    afterUserOffline:",
		"      enable: true",
		"      timeout: 5",
	}
}
