package jobs

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"syncer/imclient"
	"syncer/repo"
)

var (
	offline   = imclient.Presence{State: imclient.StateOffline}
	onlineIOS = presenceOn(imclient.StateOnline, imclient.PlatformIOS)
	onlineTwo = presenceOn(imclient.StateOnline, imclient.PlatformIOS, imclient.PlatformWeb)
	pushIOS   = imclient.Presence{State: imclient.StatePushOnline}
)

func presenceOn(state imclient.State, platforms ...imclient.Platform) imclient.Presence {
	p := imclient.Presence{State: state}
	for _, platform := range platforms {
		p.Platforms.Add(platform, imclient.ModeOnline)
	}
	return p
}

// What a trial waits for is whole seconds, and what a gap may be is none, so
// that no stretch is about as long as it may be.
var (
	turnsLast = rapid.SampledFrom([]time.Duration{20 * time.Second, 3 * time.Minute, 17 * time.Minute, 2 * time.Hour, 30 * time.Hour})
	waits     = rapid.SampledFrom([]time.Duration{time.Second, 50 * time.Second, 4 * time.Minute, 13 * time.Minute, time.Hour, 7 * time.Hour})
	latencies = rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, 40 * time.Second, 11 * time.Minute})
	maxGaps   = rapid.SampledFrom([]time.Duration{0, 90500 * time.Millisecond, 10*time.Minute + 500*time.Millisecond, time.Hour + 500*time.Millisecond})
)

// TestTruth lets anything happen to runs, in simulated time, on the real tables,
// and compares what is stored with what truly happened. Hooks, some of them forged, late or
// doubled, make a second asker look at users meanwhile.
func TestTruth(t *testing.T) {
	t.Parallel()
	for i := range 2 { // that both cores have something to do
		t.Run(fmt.Sprint("lab ", i+1), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			rapid.Check(t, func(t *rapid.T) { truthTrial(t, l) })
		})
	}
}

// truthTrial is one case: anything at random, some of it often.
func truthTrial(t *rapid.T, l *lab) {
	tr := l.trial(t)
	tr.badBatch = rapid.Bool().Draw(t, "bad batch")
	tr.config.PageUsers = rapid.IntRange(2, 5).Draw(t, "users of a page")
	if rapid.Bool().Draw(t, "removals are guarded") {
		tr.config.RemovalRatio, tr.config.RemovalMin = 0.5, 2
	}
	tr.config.RangeUsers = rapid.IntRange(4, 10).Draw(t, "users of a range")
	for range rapid.IntRange(1, 8).Draw(t, "users at first") {
		tr.drawJoin(t)
	}
	t.Repeat(map[string]func(*rapid.T){
		"start":   tr.drawStart,
		"listed":  tr.drawListed,
		"work 1":  tr.drawWork,
		"work 2":  tr.drawWork,
		"sweep 1": tr.drawSweep,
		"sweep 2": tr.drawSweep,
		"wake":    tr.drawWake,
		"end":     tr.drawEnd,
		"resume":  tr.drawResume,
		"wait":    func(t *rapid.T) { tr.wait(waits.Draw(t, "wait")) },
		"rescue":  func(t *rapid.T) { tr.rescue(drawProcess(t)) },
		"join":    tr.drawJoin,
		"leave":   tr.drawLeave,
		"reject":  tr.drawReject,
		"accept":  tr.drawAccept,
		"fault":   tr.drawFault,

		"silence":  tr.drawSilence,
		"commute":  tr.drawCommuter,
		"stumble":  tr.drawStumble,
		"overtake": tr.drawOvertaken,
		"race":     tr.drawRaces,

		"hints 1":    tr.drawHints,
		"hints 2":    tr.drawHints,
		"wake asker": tr.drawWakeAsker,
	})
	tr.windUp()
	tr.check()
}

func drawProcess(t *rapid.T) int { return rapid.IntRange(0, 1).Draw(t, "process") }

func (tr *trial) drawJoin(t *rapid.T) {
	var outside []*simUser
	keys := map[int64]bool{}
	for _, u := range tr.sorted() {
		if !u.isInside() {
			outside = append(outside, u)
			continue
		}
		keys[u.key], keys[u.twin] = true, true
	}
	var u *simUser
	switch {
	case len(outside) > 0 && rapid.Bool().Draw(t, "returns"):
		u = rapid.SampledFrom(outside).Draw(t, "user")
	case len(tr.users) == 20:
		t.Skip("enough users")
	default:
		u = &simUser{id: fmt.Sprintf("user%02d", len(tr.users)+1)}
		u.turns = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) turn {
			return turn{turnsLast.Draw(t, "for"), rapid.SampledFrom([]imclient.Presence{offline, onlineIOS, onlineTwo, pushIOS}).Draw(t, "value")}
		}), 1, 5).Draw(t, "turns")
	}
	isFree := func(key int64) bool { return !keys[key] }
	key := rapid.Int64Range(1, 100).Filter(isFree).Draw(t, "key")
	keys[key] = true
	u.twin = 0
	if rapid.Bool().Draw(t, "two rows") {
		u.twin = rapid.Int64Range(1, 100).Filter(isFree).Draw(t, "second key")
	}
	tr.join(u, key)
}

func (tr *trial) drawUser(t *rapid.T, ok func(*simUser) bool) *simUser {
	var users []*simUser
	for _, u := range tr.sorted() {
		if ok(u) {
			users = append(users, u)
		}
	}
	if len(users) == 0 {
		t.Skip("no such user")
	}
	return rapid.SampledFrom(users).Draw(t, "user")
}

func (tr *trial) drawLeave(t *rapid.T) { tr.leave(tr.drawUser(t, (*simUser).isInside)) }

// drawReject lets the API reject some users, whom drawAccept lets go again.
func (tr *trial) drawReject(t *rapid.T) {
	for range rapid.IntRange(1, 3).Draw(t, "users") {
		u := tr.drawUser(t, func(u *simUser) bool { return !u.rejected })
		u.rejected = true
		tr.say("the API rejects %s from now on", u.id)
	}
}

func (tr *trial) drawAccept(t *rapid.T) {
	u := tr.drawUser(t, func(u *simUser) bool { return u.rejected })
	u.rejected = false
	tr.say("the API rejects %s no more", u.id)
}

// drawFault lets the API, or the second opinion, be wrong about some users, or
// both be right again.
func (tr *trial) drawFault(t *rapid.T) {
	what := rapid.SampledFrom([]string{"a gateway is lost", "a gateway has stopped", "Redis is empty", "all is well"}).Draw(t, "fault")
	tr.say("%s", what)
	switch what {
	case "Redis is empty":
		tr.redisEmpty = true
		return
	case "all is well":
		tr.recover()
		return
	}
	for _, u := range rapid.SliceOfNDistinct(rapid.SampledFrom(tr.sorted()), 1, len(tr.users), (*simUser).GoString).Draw(t, "users") {
		if what == "a gateway is lost" {
			u.lost = true
		} else {
			u.stale = true
		}
	}
}

func (tr *trial) drawStart(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	tr.start(drawProcess(t), maxGaps.Draw(t, "max_gap"), nil)
}

func (tr *trial) drawListed(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	var inside []string
	for _, u := range tr.sorted() {
		if u.isInside() {
			inside = append(inside, u.id)
		}
	}
	if len(inside) == 0 {
		t.Skip("nobody to list")
	}
	tr.start(drawProcess(t), 0, rapid.SliceOfNDistinct(rapid.SampledFrom(inside), 1, min(len(inside), 4), rapid.ID[string]).Draw(t, "listed"))
}

func (tr *trial) drawWork(t *rapid.T) {
	run := tr.running()
	if run == nil {
		t.Skip("no run is going")
	}
	open := tr.open(run)
	if len(open) == 0 {
		t.Skip("nothing to work on")
	}
	o := rapid.SampledFrom(open).Draw(t, "range")
	f := fate{what: rapid.SampledFrom([]string{goesThrough, freezes, freezes, losesItsLast, meetsOutage, hasBadCall}).Draw(t, "fate")}
	if f.what == freezes || f.what == meetsOutage || f.what == hasBadCall {
		f.page = rapid.IntRange(1, 3).Draw(t, "page")
		f.silent, f.late = rapid.Bool().Draw(t, "silent"), rapid.Bool().Draw(t, "late")
	}
	tr.work(drawProcess(t), run, o.no, o.job, latencies.Draw(t, "latency"), f)
}

// drawSweep starts a run if none is going, and goes through what can be gone
// through of it.
func (tr *trial) drawSweep(t *rapid.T) {
	run := tr.running()
	if run == nil {
		run = tr.start(drawProcess(t), maxGaps.Draw(t, "max_gap"), nil)
	}
	tr.sweep(run, latencies.Draw(t, "latency"))
}

func (tr *trial) drawWake(t *rapid.T) {
	if len(tr.sleepers) == 0 {
		t.Skip("nobody sleeps")
	}
	tr.wakeUp(rapid.IntRange(0, len(tr.sleepers)-1).Draw(t, "sleeper"))
}

func (tr *trial) drawEnd(t *rapid.T) {
	run := tr.running()
	if run == nil {
		t.Skip("no run is going")
	}
	tr.end(run, rapid.SampledFrom([]repo.RunStatus{repo.RunFailed, repo.RunCancelled}).Draw(t, "status"))
}

func (tr *trial) drawResume(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	var ended []*simRun
	for _, run := range tr.sortedRuns() {
		if run.status == repo.RunFailed || run.status == repo.RunCancelled {
			ended = append(ended, run)
		}
	}
	if len(ended) == 0 {
		t.Skip("no run to resume")
	}
	tr.resume(drawProcess(t), rapid.SampledFrom(ended).Draw(t, "run"))
}

// What hardly ever comes about by itself.

// drawSilence has the API reject somebody for just one run.
func (tr *trial) drawSilence(t *rapid.T) {
	u := tr.drawUser(t, func(u *simUser) bool { return u.life != nil && !u.rejected })
	u.rejected = true
	tr.say("the API rejects %s for a while", u.id)
	tr.drawSweep(t)
	tr.wait(waits.Draw(t, "wait"))
	u.rejected = false
	tr.drawSweep(t)
}

// drawCommuter lets a user be out of the users table only while the page with
// the user is read.
func (tr *trial) drawCommuter(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	u := tr.drawUser(t, (*simUser).isInside)
	tr.leave(u)
	run := tr.start(0, maxGaps.Draw(t, "max_gap"), nil)
	open := tr.open(run)
	for _, o := range open[:len(open)-1] {
		tr.work(1, run, o.no, o.job, time.Second, fate{what: goesThrough})
	}
	first := u.key
	for _, other := range tr.users {
		first = min(first, other.key)
		if other.twin != 0 {
			first = min(first, other.twin)
		}
	}
	u.twin = 0
	tr.join(u, first-1) // where the run has been
	if rapid.Bool().Draw(t, "with another one") {
		tr.leave(tr.drawUser(t, (*simUser).isInside))
	}
	tr.sweep(run, time.Second)
	if u.isInside() && rapid.Bool().Draw(t, "for good") {
		tr.leave(u)
	}
}

// drawStumble has a run stopped when only its end was left to write.
func (tr *trial) drawStumble(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	run := tr.start(0, maxGaps.Draw(t, "max_gap"), nil)
	open := tr.open(run)
	for i, o := range open {
		f := fate{what: goesThrough}
		if i == len(open)-1 {
			f.what = losesItsLast
		}
		tr.work(0, run, o.no, o.job, time.Second, f)
	}
	tr.end(run, repo.RunCancelled)
	tr.wait(waits.Draw(t, "wait"))
	tr.resume(1, run)
	tr.sweep(run, time.Second)
}

// drawRaces has the page of one row of a user answered, and the rest of the run asked,
// answered and written before that page is, when the user has changed.
func (tr *trial) drawRaces(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	u := tr.drawUser(t, func(u *simUser) bool { return u.isInside() && u.twin != 0 })
	for range 2 {
		tr.drawRace(t, u)
		if tr.running() != nil {
			return // a page of it is to be asked about again
		}
	}
}

func (tr *trial) drawRace(t *rapid.T, u *simUser) {
	key := rapid.SampledFrom([]int64{u.key, u.twin}).Draw(t, "row")
	run := tr.start(0, maxGaps.Draw(t, "max_gap"), nil)
	var no, before int
	var job int64
	if err := tr.db.QueryRow(tr.ctx, `SELECT range_no, job_id, (SELECT count(*) FROM public.users WHERE id < $2 AND (lower_key IS NULL OR id > lower_key::bigint))
FROM syncer.sync_range WHERE run_id = $1 AND (lower_key IS NULL OR lower_key::bigint < $2) AND (upper_key IS NULL OR upper_key::bigint >= $2)`,
		run.id, key).Scan(&no, &job, &before); err != nil {
		tr.t.Fatal(err)
	}
	f := fate{what: freezes, page: before/tr.config.PageUsers + 1, late: rapid.Bool().Draw(t, "late")}
	w := tr.work(0, run, no, job, latencies.Draw(t, "latency"), f)
	change := time.Second
	for change < 31*time.Hour && u.truth(tr.begin, tr.clock.at.Add(change)) == u.truth(tr.begin, tr.clock.at) {
		change += 10 * time.Second
	}
	tr.wait(change)
	tr.sweep(run, latencies.Draw(t, "latency of the others"))
	if i := slices.Index(tr.sleepers, w); i >= 0 {
		tr.wakeUp(i)
	}
}

// drawOvertaken has a run stopped, overtaken by another one, and resumed.
func (tr *trial) drawOvertaken(t *rapid.T) {
	if tr.running() != nil {
		t.Skip("a run is going")
	}
	slow := tr.start(0, maxGaps.Draw(t, "max_gap"), nil)
	if open := tr.open(slow); rapid.Bool().Draw(t, "begun") {
		tr.work(0, slow, open[0].no, open[0].job, time.Second, fate{what: goesThrough})
	}
	if slow.status != repo.RunRunning {
		return
	}
	tr.end(slow, repo.RunFailed)
	tr.sweep(tr.start(1, maxGaps.Draw(t, "max_gap"), nil), latencies.Draw(t, "latency"))
	tr.drawJoin(t)
	tr.resume(0, slow)
	tr.sweep(slow, latencies.Draw(t, "latency"))
	if rapid.Bool().Draw(t, "leave") {
		tr.leave(tr.drawUser(t, (*simUser).isInside))
	}
}
