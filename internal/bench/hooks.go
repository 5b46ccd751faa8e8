package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgcluster"
)

// hookToken signs the hooks.
const hookToken = "made-up-token"

// hookSenders is how many connections hooks come on.
const hookSenders = 16

// hookUsers is how many users the hooks are about.
const hookUsers = 1000

var hookAddress = regexp.MustCompile(`"address":"([^"]+)"[^\n]*"message":"receiving hooks"`)

// serveNothing serves an empty handler of net/http, with which the receiver of hooks is
// compared, until ctx ends.
func serveNothing(ctx context.Context, stdout io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	fmt.Fprintf(stdout, "serving nothing on http://%s\n", l.Addr())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// hooks measures the receiver of hooks: against an empty handler, and while Postgres is
// stopped.
func (b *bench) hooks(ctx context.Context) error {
	const name = "hooks"
	w, err := b.newWorld(ctx, hookUsers, hookUsers)
	if err != nil {
		return err
	}
	sim, err := b.simulate(ctx, limits{presence: noLimit, accounts: noLimit})
	if err != nil {
		return err
	}
	if _, err := w.backfill(ctx, sim, "presence", anything); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	empty, err := b.leash.Start("serve-nothing.log", self, "-serve-nothing")
	if err != nil {
		return err
	}
	b.atEnd(empty.Stop)
	emptyURL, err := awaitOutput(ctx, empty, address)
	if err != nil {
		return err
	}
	daemon, _, err := w.startDaemon(ctx, name, settings{apps: []app{{name: appName, url: sim.url, presence: anything}}, hooks: true})
	if err != nil {
		return err
	}
	at, err := awaitOutput(ctx, daemon, hookAddress)
	if err != nil {
		return err
	}
	length := 5 * time.Second
	if b.smoke {
		length = time.Second
	}
	receiver := "http://" + at + "/hooks/" + appName
	var rates, empties []float64
	for i := range b.times(often) {
		nothing, err := pound(ctx, emptyURL, 0, length)
		if err != nil {
			return err
		}
		taken, err := pound(ctx, receiver, 0, length)
		if err != nil {
			return err
		}
		b.say(name, "run %d of %d: %s hooks/s, empty handler %s", i+1, b.times(often), thousands(taken.rate()), thousands(nothing.rate()))
		rates, empties = append(rates, taken.rate()), append(empties, nothing.rate())
	}
	b.result.add(name, "hooks/s", target{}, thousands, rates...)
	b.result.add(name, "empty handler, requests/s", target{}, thousands, empties...)
	b.result.add(name, "receiver to empty handler", atLeast(0.8), twoPlaces, quotients(rates, empties)...)
	b.cluster.StopServer(pgcluster.Fast)
	late, err := pound(ctx, receiver, median(empties)/2, 2*length)
	if err != nil {
		return err
	}
	b.result.add(name, "hooks/s while Postgres is stopped", target{}, thousands, late.rate())
	b.result.add(name, "p99 of the answers meanwhile", atMost(0.010), milliseconds, late.quantile(0.99))
	if err := b.cluster.StartServer(ctx); err != nil {
		return err
	}
	if _, err := b.findServer(ctx); err != nil {
		return err
	}
	w.db, err = pgx.Connect(ctx, w.url) // the earlier connection is gone
	return err
}

// pounded is what came of many requests.
type pounded struct {
	took    time.Duration
	answers []time.Duration // from when each was due
}

func (p pounded) rate() float64 { return float64(len(p.answers)) / p.took.Seconds() }

// quantile returns the time, in seconds, within which a share of the answers came.
func (p pounded) quantile(share float64) float64 {
	if len(p.answers) == 0 {
		return 0
	}
	slices.Sort(p.answers)
	return p.answers[int(share*float64(len(p.answers)-1))].Seconds()
}

// pound sends hooks for a time, all of which must be answered with 200: so many a second,
// or with 0 as many as it can.
func pound(ctx context.Context, to string, rate float64, during time.Duration) (pounded, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	transport := &http.Transport{MaxIdleConnsPerHost: hookSenders}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	address := to + "?" + signedQuery(time.Now())
	begin := time.Now()
	var sent atomic.Int64
	var all [hookSenders][]time.Duration
	var failed [hookSenders]error
	var senders sync.WaitGroup
	for i := range hookSenders {
		senders.Go(func() {
			for {
				n := sent.Add(1)
				due := time.Now()
				if rate > 0 {
					due = begin.Add(time.Duration(float64(n) / rate * float64(time.Second)))
					time.Sleep(time.Until(due))
				}
				if due.Sub(begin) > during {
					return
				}
				if failed[i] = sendHook(ctx, client, address, int(n)%hookUsers); failed[i] != nil {
					cancel()
					return
				}
				all[i] = append(all[i], time.Since(due))
			}
		})
	}
	senders.Wait()
	return pounded{time.Since(begin), slices.Concat(all[:]...)}, errors.Join(failed[:]...)
}

// signedQuery is the query of a hook of Tencent; it is valid for a minute.
func signedQuery(now time.Time) string {
	at := strconv.FormatInt(now.Unix(), 10)
	sum := sha256.Sum256([]byte(hookToken + at))
	return url.Values{
		"SdkAppid": {strconv.Itoa(sdkAppID)}, "CallbackCommand": {"State.StateChange"}, "contenttype": {"json"},
		"OptPlatform": {"Web"}, "RequestTime": {at}, "Sign": {hex.EncodeToString(sum[:])},
	}.Encode()
}

func sendHook(ctx context.Context, client *http.Client, to string, user int) error {
	body := fmt.Sprintf(`{"CallbackCommand":"State.StateChange","EventTime":%d,"Info":{"Action":"Login","To_Account":"user-%08d","Reason":"Register"}}`, time.Now().UnixMilli(), user+1)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(body))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("send a hook: %w", err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("a hook is answered with %s: %w", response.Status, err)
	}
	return nil
}
