package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/urfave/cli/v3"

	"syncer/internal/imsim"
)

// The simulator's default credentials, which are invented.
const (
	simSDKAppID     = 1400000000
	simTencentKey   = "simulated-tencent-key"
	simOpenIMSecret = "simulated-openim-secret"
)

func (p *program) simulateCommand() *cli.Command {
	return &cli.Command{
		Name:  "simulate",
		Usage: "serve a simulator of both backends, to try syncer without a real one",
		Description: "Answers like Tencent Chat and OpenIM, for any user id. Presence is computed from the id, " +
			"the seed and the time. It enforces call limits, signatures and tokens. Point [apps.tencent] base_url " +
			"and [apps.openim] base_url at it. HTTP calls below /_sim/ inject faults and read figures. " +
			"With a hook URL it also sends hooks about the users whom the presence API was asked about.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:8088", Usage: "`HOST:PORT` to serve on; port 0 picks a free one"},
			&cli.BoolFlag{Name: "allow-remote", Usage: "allow an address that other machines can reach"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "`SEED` of the population"},
			&cli.FloatFlag{Name: "speed", Value: 1, Usage: "`TIMES` by which the population is faster than the clock; at 1440 a day takes a minute"},
			&cli.FloatFlag{Name: "change-share", HideDefault: true, Usage: "instead of a daily rhythm: a `SHARE` (0 to 1) of the users changes with every POST /_sim/round"},
			&cli.FloatFlag{Name: "account-change-share", HideDefault: true, Usage: "the `SHARE` whose import status changes (default: that of --change-share)"},
			&cli.FloatFlag{Name: "unknown-share", Value: 0.02, Usage: "with --change-share: the `SHARE` of users who are not imported at first"},
			&cli.BoolFlag{Name: "record", Usage: "record all served values, for GET /_sim/served"},
			&cli.Uint64Flag{Name: "tencent-sdk-app-id", Value: simSDKAppID, Usage: "`ID` of the Tencent app"},
			&cli.StringFlag{Name: "tencent-identifier", Value: "administrator", Usage: "`NAME` of its administrator"},
			&cli.StringFlag{Name: "tencent-secret-key", Value: simTencentKey, Usage: "`KEY` for signatures"},
			&cli.IntFlag{Name: "tencent-presence-rate", Value: 200, Usage: "presence `CALLS` allowed in any second; negative: no limit"},
			&cli.IntFlag{Name: "tencent-accounts-rate", Value: 100, Usage: "account_check `CALLS` allowed in any second; negative: no limit"},
			&cli.StringFlag{Name: "tencent-hook-url", Usage: "send Tencent's hooks to `URL`, such as http://127.0.0.1:9466/hooks/main"},
			&cli.StringFlag{Name: "tencent-hook-token", Usage: "`TOKEN` that signs them (default: not signed)"},
			&cli.StringFlag{Name: "openim-version", Value: string(imsim.OpenIM383), Usage: "answer as OpenIM `VERSION`: 3.8.0, 3.8.3 or main"},
			&cli.StringFlag{Name: "openim-admin-user-id", Value: "imAdmin", Usage: "`ID` of OpenIM's administrator"},
			&cli.StringFlag{Name: "openim-secret", Value: simOpenIMSecret, Usage: "`SECRET` for a login"},
			&cli.DurationFlag{Name: "openim-token-ttl", Value: 90 * 24 * time.Hour, Usage: "`TIME` for which a token is valid"},
			&cli.StringFlag{Name: "openim-hook-url", Usage: "send OpenIM's hooks to `URL`, such as http://127.0.0.1:9466/hooks/chat/SECRET"},
			&cli.BoolFlag{Name: "openim-hooks-before-35", Usage: "send them as OpenIM 3.0 to 3.4 do, with the command in the query"},
			&cli.IntFlag{Name: "openim-rate", Usage: "`CALLS` of each API allowed in any second; 0: no limit"},
		},
		Action: p.simulate,
	}
}

func (p *program) simulate(ctx context.Context, c *cli.Command) error {
	if err := noArgs(c); err != nil {
		return err
	}
	simConfig := imsim.Config{
		Tencent: &imsim.Tencent{
			SDKAppID: c.Uint64("tencent-sdk-app-id"), Admins: []string{c.String("tencent-identifier")}, SecretKey: c.String("tencent-secret-key"),
			PresenceRate: c.Int("tencent-presence-rate"), AccountsRate: c.Int("tencent-accounts-rate"),
			HookURL: c.String("tencent-hook-url"), HookToken: c.String("tencent-hook-token"),
		},
		OpenIM: &imsim.OpenIM{
			AdminUserID: c.String("openim-admin-user-id"), Secret: c.String("openim-secret"), TokenTTL: c.Duration("openim-token-ttl"),
			Version: imsim.OpenIMVersion(c.String("openim-version")), PresenceRate: c.Int("openim-rate"), AccountsRate: c.Int("openim-rate"),
			HookURL: c.String("openim-hook-url"), HooksBefore35: c.Bool("openim-hooks-before-35"),
		},
		Population: imsim.NewDaily(c.Uint64("seed"), time.Now()),
		Speed:      c.Float("speed"),
		Record:     c.Bool("record"),
	}
	for _, name := range []string{"change-share", "account-change-share", "unknown-share"} {
		if share := c.Float(name); share < 0 || share > 1 {
			return usageError("--%s wants a share from 0 to 1", name)
		}
	}
	if c.IsSet("change-share") {
		rounds := imsim.NewRounds(c.Uint64("seed"), c.Float("change-share"))
		if c.IsSet("account-change-share") {
			rounds.AccountShare = c.Float("account-change-share")
		}
		rounds.UnknownShare = c.Float("unknown-share")
		simConfig.Population = rounds
	}
	if err := simConfig.Validate(); err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	if err := loopbackOnly(c.String("listen"), c.Bool("allow-remote")); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.String("listen"))
	if err != nil {
		return fmt.Errorf("listen on %s: %w; choose another --listen", c.String("listen"), err)
	}
	p.say("simulating Tencent Chat (app %d) and OpenIM %s on http://%s",
		c.Uint64("tencent-sdk-app-id"), c.String("openim-version"), listener.Addr())
	if err := imsim.New(simConfig).Serve(ctx, listener); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("serve the simulator: %w", err)
	}
	return nil
}

// loopbackOnly returns an error for an address that other machines reach, unless
// allowRemote: anyone who reaches it controls the simulator.
func loopbackOnly(address string, allowRemote bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return usageError("--listen %q: want HOST:PORT", address)
	}
	ip := net.ParseIP(host)
	if allowRemote || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return usageError("--listen %s is reachable from other machines; add --allow-remote if that is intended", address)
}
