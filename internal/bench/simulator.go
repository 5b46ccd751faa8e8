package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"syncer/internal/dev/leash"
)

// What syncer simulate expects unless told otherwise.
const (
	sdkAppID   = 1400000000
	identifier = "administrator"
	secretKey  = "simulated-tencent-key"
)

// noLimit is the rate of a simulator, and of an app, that nothing holds up.
const (
	noLimit  = -1
	anything = 10_000 // calls per second, the most that can be configured
)

// limits are what a simulator enforces, in calls per second, and how its
// population changes.
type limits struct {
	presence, accounts int
	change             float64 // share of the users whose presence changes with a round
	accountChange      float64
}

// simulator is a process of the simulator, in which everybody is imported at
// first.
type simulator struct {
	*leash.Process
	url string
}

// address finds where a process says that it serves.
var address = regexp.MustCompile(`http://\S+`)

func (b *bench) simulate(ctx context.Context, l limits) (*simulator, error) {
	b.started++
	p, err := b.leash.Start(fmt.Sprintf("simulator-%d.log", b.started), b.simulator, "simulate", "--listen", "127.0.0.1:0",
		"--change-share", number(l.change), "--account-change-share", number(l.accountChange), "--unknown-share", "0",
		"--tencent-presence-rate", strconv.Itoa(l.presence), "--tencent-accounts-rate", strconv.Itoa(l.accounts))
	if err != nil {
		return nil, err
	}
	b.atEnd(p.Stop)
	url, err := awaitOutput(ctx, p, address)
	return &simulator{p, url}, err
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// startPatience is how long a process may take to say where it serves.
const startPatience = time.Minute

// awaitOutput waits for a process to print something, and returns its last
// group.
func awaitOutput(ctx context.Context, p *leash.Process, what *regexp.Regexp) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		if found := what.FindStringSubmatch(p.LastOutput()); found != nil {
			return found[len(found)-1], nil
		}
		if err := pause(ctx, 20*time.Millisecond, p); err != nil {
			return "", err
		}
	}
}

// pause waits for a while, or for the context or a process to end, which is an
// error.
func pause(ctx context.Context, d time.Duration, processes ...*leash.Process) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, p := range processes {
		select {
		case <-p.Gone:
			return p.Died()
		default:
		}
	}
	return nil
}

// apiStats is what is read of the simulator's figures, of one API.
type apiStats struct {
	Calls        int `json:"calls"`
	RateLimited  int `json:"rate_limited"`
	Failed       int `json:"failed"`
	MaxPerSecond int `json:"max_per_second"`
}

// stats adds up what the simulator has seen since the last reset.
func (s *simulator) stats(ctx context.Context) (apiStats, error) {
	var all struct {
		APIs map[string]apiStats `json:"apis"`
	}
	err := control(ctx, http.MethodGet, s.url+"/_sim/stats", nil, &all)
	var sum apiStats
	for _, api := range all.APIs {
		sum.Calls += api.Calls
		sum.RateLimited += api.RateLimited
		sum.Failed += api.Failed
		sum.MaxPerSecond = max(sum.MaxPerSecond, api.MaxPerSecond)
	}
	return sum, err
}

// reset forgets the figures and clears the faults.
func (s *simulator) reset(ctx context.Context) error {
	return control(ctx, http.MethodPost, s.url+"/_sim/reset", nil, nil)
}

// setRound lets the population change.
func (s *simulator) setRound(ctx context.Context, round int) error {
	return control(ctx, http.MethodPost, s.url+"/_sim/round", map[string]int{"round": round}, nil)
}

// breakDown answers every call with HTTP 503 until the reset.
func (s *simulator) breakDown(ctx context.Context) error {
	return control(ctx, http.MethodPost, s.url+"/_sim/faults", map[string]any{"kind": "status", "status": http.StatusServiceUnavailable}, nil)
}

// control calls one of the simulator's own paths.
func control(ctx context.Context, method, url string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if body == nil {
		content = nil
	}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, url, response.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}
