package imsim

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// The names of the senders of hooks, as Path of a fault and in Stats.
const (
	PathTencentHooks = "hooks/tencent"
	PathOpenIMHooks  = "hooks/openim"
)

// hookEvery is how often Serve looks for changes to send. OpenIM collects them for up to
// a second.
const hookEvery = 250 * time.Millisecond

// hookTimeout is how long a provider waits for an answer. Sources: Tencent Chat "Webhook
// Overview", 2 s; OpenIM's webhooks.yml, 5 s.
const hookTimeout = 5 * time.Second

// hookSenders is how many hooks are sent at once if many are due. A few are sent one by
// one, in order.
const hookSenders = 8

// reach is how a user is reachable on each platform: by the most connected of its
// devices, or not at all (0).
type reach [numPlatforms]Mode

func (m Mode) connected() bool { return m >= Background }

// hook is one hook to be sent.
type hook struct {
	userID    string
	platform  Platform
	was, is   Mode
	at        time.Time // of the event, by the clock
	operation int       // OpenIM's hooks of one flush have the same
	forged    bool      // sent by somebody else, without token or secret
	due       time.Time
}

// hookForm is a provider's form of hooks.
type hookForm interface {
	// changed appends the hooks about a user's change.
	changed(hooks []hook, h hook, was, is reach) []hook
	// request returns address and body of the request for a hook.
	request(h hook, now time.Time) (url string, body []byte)
}

// watched is what the sender knows of a user.
type watched struct {
	userID string
	reach  reach
	seen   time.Time // when reach was, by the clock
	told   time.Time // of the newest hook
}

// hookSender sends the hooks of one provider about the users whom the presence API was
// asked about. It finds changes by looking again and again, so that it works for every
// population.
type hookSender struct {
	server *Server
	form   hookForm
	path   string
	client http.Client

	mu    sync.Mutex
	users []*watched
	known map[string]struct{}

	step      sync.Mutex // of the fields below
	operation int
	late      []hook // until they are due
	held      []hook // until another one was sent
	buffer    []Device
}

func newHookSender(s *Server, path string, form hookForm) *hookSender {
	return &hookSender{
		server: s, form: form, path: path, known: make(map[string]struct{}),
		client: http.Client{Timeout: hookTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: hookSenders}},
	}
}

// watch begins to send hooks about users.
func (s *hookSender) watch(ids []string) {
	now := s.server.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var buffer []Device
	for _, id := range ids {
		if _, ok := s.known[id]; ok {
			continue
		}
		s.known[id] = struct{}{}
		w := &watched{userID: id, seen: now, told: now}
		w.reach, buffer = s.server.reachAt(buffer, id, now)
		s.users = append(s.users, w)
	}
}

// reachAt returns how a user is reachable at an instant of the clock. buffer is reused.
func (s *Server) reachAt(buffer []Device, id string, at time.Time) (reach, []Device) {
	var r reach
	buffer = s.users.AppendDevices(buffer[:0], id, s.populationTime(at))
	for _, d := range buffer {
		r[d.Platform] = max(r[d.Platform], d.Mode)
	}
	return r, buffer
}

// SendHooks sends the hooks about what has changed since it was called last, and what
// faults add. It returns when all are answered. Serve calls it, too.
func (s *Server) SendHooks(ctx context.Context) {
	for _, sender := range s.hooks {
		sender.send(ctx)
	}
}

// WatchHooks begins to send hooks about users of whom no presence API was asked yet.
func (s *Server) WatchHooks(userIDs ...string) {
	for _, sender := range s.hooks {
		sender.watch(userIDs)
	}
}

// followHooks sends hooks until ctx ends.
func (s *Server) followHooks(ctx context.Context) {
	if len(s.hooks) == 0 {
		return
	}
	ticker := time.NewTicker(hookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.SendHooks(ctx)
		}
	}
}

func (s *hookSender) send(ctx context.Context) {
	s.step.Lock()
	defer s.step.Unlock()
	now := s.server.now()
	s.mu.Lock()
	users := s.users // append leaves these as they are
	s.mu.Unlock()
	hooks := s.again(users, now)
	for _, w := range users {
		hooks = s.look(hooks, w, now)
	}
	hooks = s.spoil(hooks, now)
	s.deliver(ctx, hooks)
}

// look appends the hooks about a user's change since the last look.
func (s *hookSender) look(hooks []hook, w *watched, now time.Time) []hook {
	var is reach
	is, s.buffer = s.server.reachAt(s.buffer, w.userID, now)
	if is != w.reach {
		s.operation++
		hooks = s.form.changed(hooks, hook{userID: w.userID, at: s.changedAt(w, now), operation: s.operation}, w.reach, is)
		w.reach, w.told = is, now
	}
	w.seen = now
	return hooks
}

// changedAt returns when a user began to differ from the last look: to a millisecond if
// that follows from the time, and now if the user was set.
func (s *hookSender) changedAt(w *watched, now time.Time) time.Time {
	differs := func(at time.Time) bool {
		var r reach
		r, s.buffer = s.server.reachAt(s.buffer, w.userID, at)
		return r != w.reach
	}
	before, after := w.seen, now
	if differs(before) {
		return now
	}
	for after.Sub(before) > time.Millisecond {
		if middle := before.Add(after.Sub(before) / 2); differs(middle) {
			after = middle
		} else {
			before = middle
		}
	}
	return after
}

// again returns the hooks of storms, and OpenIM's repetition.
func (s *hookSender) again(users []*watched, now time.Time) (hooks []hook) {
	for _, hit := range s.server.faults.take(&api{path: s.path, hooks: hooksOfAll}, nil) {
		for _, w := range users {
			h := hook{userID: w.userID, at: now}
			switch {
			case hit.Kind == FaultHookStorm && (hit.Share == 0 && len(hit.IDs) == 0 || hit.holds(w.userID)):
				s.operation++
				h.operation = s.operation
				gone := w.reach
				for p := range gone {
					gone[p] = min(gone[p], Push)
				}
				hooks = s.form.changed(hooks, h, w.reach, gone)
				hooks = s.form.changed(hooks, h, gone, w.reach)
			case hit.Kind == FaultHookRepeat && now.Sub(w.told) >= cmp.Or(hit.Delay, hookRepetition):
				s.operation++
				h.operation = s.operation
				hooks = s.form.changed(hooks, h, reach{}, w.reach)
				w.told = now
			}
		}
	}
	return hooks
}

// hookRepetition is how often an OpenIM gateway announces connected users again: a third
// of the time after which Redis forgets them.
const hookRepetition = 10 * time.Minute

// lateHook is the default of how late a hook is.
const lateHook = 30 * time.Second

// spoil applies the faults to hooks, and returns what is to be sent now, in order.
func (s *hookSender) spoil(hooks []hook, now time.Time) (due []hook) {
	waiting := s.late
	s.late = nil
	for _, h := range waiting {
		if h.due.After(now) {
			s.late = append(s.late, h)
		} else {
			due = append(due, h)
		}
	}
	if len(hooks) == 0 {
		due = append(due, s.held...)
		s.held = nil
	}
	for _, h := range hooks {
		held := s.held
		s.held = nil
		next := s.spoilOne(h, now)
		if due = append(due, next...); len(next) > 0 {
			due = append(due, held...)
		} else {
			s.held = append(held, s.held...)
		}
	}
	return due
}

// spoilOne applies the faults to one hook. It returns what takes its place.
func (s *hookSender) spoilOne(h hook, now time.Time) (sent []hook) {
	sent = []hook{h}
	for _, hit := range s.server.faults.take(&api{path: s.path, hooks: hooksOfOne}, []string{h.userID}) {
		opposite := h
		opposite.was, opposite.is = h.is, h.was
		if h.was.connected() == h.is.connected() { // OpenIM's repetition of a device
			opposite.was, opposite.is = Online, 0
		}
		switch hit.Kind {
		case FaultHookLost:
			sent = nil
		case FaultHookDoubled:
			sent = append(sent, sent...)
		case FaultHookLate:
			h.due = now.Add(cmp.Or(hit.Delay, lateHook))
			s.late = append(s.late, h)
			sent = nil
		case FaultHookReordered:
			s.held = append(s.held, sent...)
			sent = nil
		case FaultHookForged:
			opposite.forged = true
			sent = append([]hook{opposite}, sent...)
		case FaultHookFalse:
			sent = append([]hook{opposite}, sent...)
		case FaultHookTrap:
			if h.is.connected() {
				h.was, h.is = h.is, 0
				sent = append(sent, h)
			}
		}
	}
	return sent
}

// deliver sends hooks and counts what became of them.
func (s *hookSender) deliver(ctx context.Context, hooks []hook) {
	senders := 1
	if len(hooks) > 32*hookSenders {
		senders = hookSenders
	}
	next := make(chan hook)
	var done sync.WaitGroup
	for range senders {
		done.Go(func() {
			for h := range next {
				s.post(ctx, h)
			}
		})
	}
	for _, h := range hooks {
		next <- h
	}
	close(next)
	done.Wait()
}

// post sends one hook. Like the providers, it does not repeat one that fails.
func (s *hookSender) post(ctx context.Context, h hook) {
	url, body := s.form.request(h, s.server.now())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		s.server.counters.hooked(s.path, 0)
		return
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	response, err := s.client.Do(r)
	if err != nil {
		s.server.counters.hooked(s.path, 0)
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	response.Body.Close()
	s.server.counters.hooked(s.path, response.StatusCode)
}
