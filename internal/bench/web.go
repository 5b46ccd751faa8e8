package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// webLanes is how many lookups are wanted at once.
	webLanes = 32
	// webConns is how many connections to Postgres they share, as in syncer web.
	webConns = 4
)

// lookupSQL is what a program would ask Postgres that has no API: the columns that the
// API answers with.
const lookupSQL = `
SELECT user_id, state::text, platforms::text, since_after, since, last_online_after, last_online_at, last_checked_at, stale
FROM syncer.presence_current
WHERE app_id = $1 AND user_id = ANY ($2)`

// lookup looks users up once. Each lane has one of its own.
type lookup func(ctx context.Context, users []string) error

// webAddress finds the address of the pages and the API in a log.
var webAddress = regexp.MustCompile(`"address":"([^"]+)","[^}]*"message":"pages and read API"`)

// web measures the read API beside a bare lookup of the same rows, and sweeps at the
// quota beside half of that load.
func (b *bench) web(ctx context.Context) error {
	const name = "web"
	s, limit, err := b.atQuota(ctx, name, b.users, 0.05)
	if err != nil {
		return err
	}
	w := s.world
	address, err := w.startWeb(ctx, name)
	if err != nil {
		return err
	}
	alone, err := s.measured(ctx, b.times(seldom))
	if err != nil {
		return err
	}
	// From here on the daemon waits: its sweeps would take time from both.
	if err := s.daemon.Stop(); err != nil {
		return err
	}
	bare, closeBare, err := w.bareLookups(ctx)
	if err != nil {
		return err
	}
	defer closeBare()
	api, closeAPI, err := apiLookups(ctx, address)
	if err != nil {
		return err
	}
	defer closeAPI()
	var half float64
	for _, c := range []struct {
		users int
		least float64
	}{{1, 0.7}, {500, 0.8}} {
		var bareRates, apiRates []float64
		for i := range 1 + b.times(often) {
			bareRate, err := w.rate(ctx, bare, c.users)
			if err != nil {
				return err
			}
			apiRate, err := w.rate(ctx, api, c.users)
			if err != nil {
				return err
			}
			if i == 0 {
				continue // the first time warms up
			}
			b.say(name, "%d users a lookup, run %d: %s a second, bare %s", c.users, i, thousands(apiRate), thousands(bareRate))
			bareRates, apiRates = append(bareRates, bareRate), append(apiRates, apiRate)
		}
		b.result.add(name, fmt.Sprintf("lookups/s, users in each: %d", c.users), target{}, thousands, apiRates...)
		b.result.add(name, fmt.Sprintf("bare lookups/s, users in each: %d", c.users), target{}, thousands, bareRates...)
		b.result.add(name, fmt.Sprintf("API to bare lookup, users in each: %d", c.users), atLeast(c.least), twoPlaces, quotients(apiRates, bareRates)...)
		if half == 0 {
			half = median(apiRates) / 2
		}
	}
	return w.sweepsBesideLookups(ctx, s, api, half, alone, limit)
}

// sweepsBesideLookups measures sweeps at the quota beside lookups at a rate, and what
// the lookups then take.
func (w *world) sweepsBesideLookups(ctx context.Context, s *sweeps, api []lookup, perSecond float64, alone []sweep, limit int) error {
	round := s.round
	quota, _ := w.quota(presenceQuota)
	again, err := w.startSweeps(ctx, s.name, "presence", s.sim, quota, s.every)
	if err != nil {
		return err
	}
	again.round = round
	loadCtx, stop := context.WithCancel(ctx)
	load := w.steadyLoad(loadCtx, api, perSecond)
	beside, err := again.measured(ctx, w.times(seldom))
	stop()
	took, loadErr := load()
	if err = errors.Join(err, loadErr); err != nil {
		return err
	}
	rate := func(s sweep) float64 { return s.rate() }
	w.result.add(s.name, "p99 of a lookup at half that rate, beside sweeps", atMost(0.010), milliseconds, quantile(took, 0.99))
	w.result.add(s.name, "lookups beside sweeps", target{}, thousands, float64(len(took)))
	w.result.add(s.name, "sweeps beside lookups to sweeps alone", atLeast(0.97), twoPlaces, median(of(beside, rate))/median(of(alone, rate)))
	return errors.Join(again.addCalls(beside, limit), again.finish(ctx, 0.05))
}

func milliseconds(v float64) string { return twoPlaces(1000*v) + " ms" }

// startWeb starts syncer web and returns its address.
func (w *world) startWeb(ctx context.Context, name string) (address string, err error) {
	path, err := w.configure(name+"-web", settings{apps: []app{{name: appName, url: "http://127.0.0.1:1"}}})
	if err != nil {
		return "", err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	_, err = file.WriteString("[web]\nlisten = \"127.0.0.1:0\"\nuser_pages = true\n")
	if err = errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	w.started++
	server, err := w.leash.Start(fmt.Sprintf("%s-web-%d.log", name, w.started), w.syncer, "web", "--config", path)
	if err != nil {
		return "", err
	}
	w.atEnd(server.Stop)
	return awaitOutput(ctx, server, webAddress)
}

// bareLookups returns lookups over the driver alone.
func (w *world) bareLookups(ctx context.Context) (lanes []lookup, done func(), err error) {
	var appID int16
	if err := w.db.QueryRow(ctx, appIDSQL, appName).Scan(&appID); err != nil {
		return nil, nil, err
	}
	config, err := pgxpool.ParseConfig(w.url)
	if err != nil {
		return nil, nil, err
	}
	config.MaxConns = webConns
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	type row struct {
		UserID, State, Platforms                   string
		SinceAfter                                 *time.Time
		Since                                      time.Time
		LastOnlineAfter, LastOnlineAt, LastChecked *time.Time
		Stale                                      bool
	}
	for range webLanes {
		lanes = append(lanes, func(ctx context.Context, users []string) error {
			rows, err := pool.Query(ctx, lookupSQL, appID, users)
			if err != nil {
				return err
			}
			defer rows.Close()
			n := 0
			for ; rows.Next(); n++ {
				var r row
				if err := rows.Scan(&r.UserID, &r.State, &r.Platforms, &r.SinceAfter, &r.Since, &r.LastOnlineAfter, &r.LastOnlineAt, &r.LastChecked, &r.Stale); err != nil {
					return err
				}
			}
			if rows.Err() == nil && n != len(users) {
				return fmt.Errorf("%d rows about %d users", n, len(users))
			}
			return rows.Err()
		})
	}
	return lanes, pool.Close, nil
}

// apiLookups returns lookups over the API, each with a connection of its own. They send
// and read plain HTTP, because a client of Go's would cost as much as the server.
func apiLookups(ctx context.Context, address string) (lanes []lookup, done func(), err error) {
	var all []net.Conn
	done = func() {
		for _, c := range all {
			_ = c.Close()
		}
	}
	for range webLanes {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			done()
			return nil, nil, err
		}
		all = append(all, c)
		r := bufio.NewReaderSize(c, 64<<10)
		var request []byte
		lanes = append(lanes, func(ctx context.Context, users []string) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			request = append(request[:0], "GET /v1/presence?app="+appName...)
			for _, user := range users {
				request = append(append(request, "&user="...), user...)
			}
			request = append(append(append(request, " HTTP/1.1\r\nHost: "...), address...), "\r\n\r\n"...)
			if _, err := c.Write(request); err != nil {
				return err
			}
			return readAnswer(r, len(users))
		})
	}
	return lanes, done, nil
}

// readAnswer reads one answer about so many known users.
func readAnswer(r *bufio.Reader, users int) error {
	length, ok := 0, false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		switch {
		case bytes.HasPrefix(line, []byte("HTTP/1.1 ")):
			ok = bytes.HasPrefix(line, []byte("HTTP/1.1 200"))
		case bytes.HasPrefix(line, []byte("Content-Length: ")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len("Content-Length: "):]))); err != nil {
				return err
			}
		}
		if len(line) <= 2 {
			break
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	if !ok || bytes.Count(body, []byte(`"state":"`)) != users {
		return fmt.Errorf("no answer about %d users: %.200s", users, body)
	}
	return nil
}

// lookupTime is how long one rate is measured.
func (b *bench) lookupTime() time.Duration {
	if b.smoke {
		return 200 * time.Millisecond
	}
	return 4 * time.Second
}

// someUsers returns users at random.
func (w *world) someUsers(r *rand.Rand, n int) []string {
	users := make([]string, 0, n)
	for first := r.IntN(w.users); len(users) < n; first += 7919 { // no user twice
		users = append(users, fmt.Sprintf("user-%08d", first%w.users+1))
	}
	return users
}

// rate returns lookups a second of so many users each, over all lanes.
func (w *world) rate(ctx context.Context, lanes []lookup, users int) (perSecond float64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	end := began.Add(w.lookupTime())
	var all sync.WaitGroup
	counts := make([]int, len(lanes))
	for i, lane := range lanes {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), uint64(users)))
			for time.Now().Before(end) {
				if err := lane(ctx, w.someUsers(r, users)); err != nil {
					cancel(err)
					return
				}
				counts[i]++
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(began).Seconds(), nil
}

// steadyLoad looks single users up at a rate until ctx ends. wait returns how long each
// lookup took from the time at which it was due, in seconds.
func (w *world) steadyLoad(ctx context.Context, lanes []lookup, perSecond float64) (wait func() ([]float64, error)) {
	var all sync.WaitGroup
	var mu sync.Mutex
	var took []float64
	var failed error
	every := time.Duration(float64(len(lanes)) / perSecond * float64(time.Second))
	for i, lane := range lanes {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			var mine []float64
			var err error
			for due := time.Now().Add(time.Duration(i) * every / time.Duration(len(lanes))); ctx.Err() == nil && err == nil; due = due.Add(every) {
				time.Sleep(time.Until(due))
				err = lane(context.WithoutCancel(ctx), w.someUsers(r, 1))
				mine = append(mine, time.Since(due).Seconds())
			}
			mu.Lock()
			defer mu.Unlock()
			took, failed = append(took, mine...), errors.Join(failed, err)
		})
	}
	return func() ([]float64, error) {
		all.Wait()
		return took, failed
	}
}

// quantile returns the value below which a share of the values is.
func quantile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(share*float64(len(sorted)-1))]
}
