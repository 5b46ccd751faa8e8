package jobs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/repo"
)

// simRun is what there is to know of a run.
type simRun struct {
	id           int64
	start        time.Time
	prevComplete time.Time // start of the previous complete run; zero: none
	recorded     time.Time // when all failures were recorded, as of this run
	maxGap       time.Duration
	listed       bool
	status       repo.RunStatus
	owners       map[int]*worker // of ranges
	met          map[string]bool
	looks        []look
	from, until  time.Time // it has looked, once it is complete
	repo.Counters
	removed int64
	held    bool // users who are missing from the table were too many to be removed
	calls   int64
}

// look is an event of a run: its start, a page, or that it was opened again.
type look struct {
	at   time.Time
	page bool
}

// GoString names the run where rapid shows what it drew.
func (r *simRun) GoString() string { return fmt.Sprint("run ", r.id) }

func (r *simRun) owns(w *worker) bool {
	return r.status == repo.RunRunning && r.owners[w.claimed.No] == w
}

func (r *simRun) complete() bool {
	return !r.listed && !r.held && (r.status == repo.RunSucceeded || r.status == repo.RunPartial)
}

// simRow is a row that there should be in the history.
type simRow struct {
	prev, value string
	bracket     [2]time.Time // not_before (zero: first seen), observed_at
	prevSince   time.Time
	prevAfter   *time.Time
	toldAt      *time.Time // by a hook, of the transition
	prevTold    *time.Time // and of the beginning of the previous state
	run         int64
	about       bool // observed_at is known only about; see pull
}

func spell(v imclient.Presence) string { return v.State.String() + " " + v.Platforms.String() }

func (r simRow) String() string {
	if r.bracket[0].IsZero() {
		return fmt.Sprintf("at %s: %s (run %d)", stamp(r.bracket[1]), r.value, r.run)
	}
	return fmt.Sprintf("in (%s, %s], told %s: %s, after %s since (%s, %s], told %s (run %d)", stamp(r.bracket[0]), stamp(r.bracket[1]), stampOr(r.toldAt),
		r.value, r.prev, stampOr(r.prevAfter), stamp(r.prevSince), stampOr(r.prevTold), r.run)
}

func stampOr(at *time.Time) string {
	if at == nil {
		return "-"
	}
	return stamp(*at)
}

// note notes that a worker has written its page, and what this should lead to.
func (tr *trial) note(w *worker) {
	now, run, page := tr.clock.Now(), w.run, w.page
	if !run.owns(w) {
		tr.wrong = append(tr.wrong, fmt.Sprintf("%s has written a page of a range that it does not own", w.name))
	}
	if tr.suspect(page) && w.claimed.SuspectAnswers+1 < maxSuspectAnswers {
		tr.wrong = append(tr.wrong, fmt.Sprintf("%s has written a suspect page", w.name))
	}
	run.looks = append(run.looks, look{now, true})
	run.Users += int64(len(page.ids))
	run.Failed += int64(len(page.rejected))
	run.calls += page.calls
	for _, u := range tr.sorted() {
		answer, ok := page.answers[u.id]
		if !ok {
			continue
		}
		run.met[u.id] = true
		opinion, asked := page.opinions[u.id]
		if asked && answer.value == offline && opinion.value != offline {
			tr.say("%s has written that %s is contradicted", w.name, u.id)
			run.Failed++
			tr.contradicted(u, run, now)
			continue
		}
		if asked {
			answer = settledWith(u.life.value.Platforms, answer, opinion)
		}
		tr.say("%s has written that %s was %s at %s", w.name, u.id, spell(answer.value), stamp(answer.instant))
		if tr.answered(u, run, answer) {
			run.Changed++
		}
	}
	for _, id := range page.rejected {
		tr.say("%s has written that the API rejects %s", w.name, id)
		run.met[id] = true
		tr.rejected(tr.users[id], run, page.askedAt[id], now)
	}
}

// noteSuspect notes that a worker has set its page aside.
func (tr *trial) noteSuspect(w *worker) {
	tr.say("%s has set its page aside", w.name)
	if !w.run.owns(w) || !tr.suspect(w.page) || w.claimed.SuspectAnswers+1 >= maxSuspectAnswers {
		tr.wrong = append(tr.wrong, fmt.Sprintf("%s has set aside a page that is not suspect, or not its own", w.name))
	}
	w.run.calls += w.page.calls
}

// suspect tells whether too many users of a page go offline by both opinions.
func (tr *trial) suspect(page *simPage) bool {
	return tr.suspects(page, func(id string) *life { return tr.users[id].life }, func(string) bool { return false })
}

// suspects does the same with what was known, and which logouts were announced.
func (tr *trial) suspects(page *simPage, known func(id string) *life, announced func(id string) bool) bool {
	before, gone := 0, 0
	for id, answer := range page.answers {
		if life := known(id); life == nil || life.value == offline || answer.value == offline && announced(id) {
			continue
		}
		before++
		if answer.value == offline && page.opinions[id].value == offline {
			gone++
		}
	}
	return gone >= 2 && 2*gone > before
}

// settledWith is what two opinions say of a user who is offline by both, or online on
// platforms of either. No user goes offline who is not, unless both are wrong.
func settledWith(known imclient.Platforms, answer, opinion told) told {
	answer.answered = opinion.answered
	if answer.value != offline {
		if answer.value.Platforms = union(answer.value.Platforms, opinion.value.Platforms, known); answer.value == opinion.value {
			answer.instant, answer.lie = opinion.instant, opinion.lie
		}
	} else if answer.lie {
		answer.instant, answer.lie = opinion.instant, opinion.lie
	}
	return answer
}

// contradicted: the user keeps the value, however long that goes on.
func (tr *trial) contradicted(u *simUser, run *simRun, now time.Time) {
	switch {
	case u.fail == nil:
		u.fail = &failing{contradicted: true, knownAt: u.known(run), last: now}
	case run.recorded.Equal(run.start) || !u.fail.contradicted:
		u.fail.contradicted, u.fail.last = true, now
	}
}

// known is when the user was last known to have the value.
func (u *simUser) known(run *simRun) time.Time { return knownSince(u.life, u.fail, run.prevComplete) }

func knownSince(life *life, fail *failing, prevComplete time.Time) time.Time {
	switch {
	case fail != nil:
		return later(life.asked, fail.knownAt)
	case life.answered.After(prevComplete):
		return life.asked // what that run saw may have been overtaken
	default:
		return prevComplete
	}
}

func (tr *trial) answered(u *simUser, run *simRun, a told) (changed bool) {
	u.told = append(u.told, a)
	old := u.life
	if u.fail != nil && u.fail.last.After(a.asked) {
		if old == nil {
			return false // it may be from before the user lapsed
		}
	} else {
		defer func() { u.fail = nil }()
	}
	switch {
	case old != nil && old.value != a.value && old.answered.After(a.asked):
		return false // nobody knows which of the two is the newer
	case old == nil:
		u.want = append(u.want, simRow{value: spell(a.value), bracket: [2]time.Time{{}, a.answered}, run: run.id})
		u.life = &life{told: a, since: a.answered}
	case old.value != a.value:
		row := tr.ends(u, run, a.answered, spell(a.value))
		u.changes(a, row, nil)
	default:
		old.missed = false
	}
	return old == nil || old.value != a.value
}

// changes makes another answer the user's value, from a row of the history on. toldAt is
// when that happened by a hook.
func (u *simUser) changes(a told, row simRow, toldAt *time.Time) {
	old := u.life
	u.life = &life{told: a, since: old.since, sinceAfter: old.sinceAfter, toldAt: old.toldAt, lastOnline: old.lastOnline}
	if old.value.State == a.value.State {
		return
	}
	u.life.since, u.life.sinceAfter, u.life.toldAt = a.answered, &row.bracket[0], toldAt
	switch imclient.StateOnline {
	case a.value.State:
		u.life.lastOnline = nil
	case old.value.State:
		u.life.lastOnline = &row.bracket
	}
}

// ends adds the row with which the user's present value ends.
func (tr *trial) ends(u *simUser, run *simRun, at time.Time, value string) simRow {
	return tr.endsFrom(u, u.known(run), run.id, at, value)
}

func (tr *trial) endsFrom(u *simUser, notBefore time.Time, run int64, at time.Time, value string) simRow {
	row := simRow{
		prev: u.life.value.State.String(), value: value, bracket: [2]time.Time{notBefore, at},
		prevSince: u.life.since, prevAfter: u.life.sinceAfter, prevTold: u.life.toldAt, run: run,
	}
	// The bracket holds: the user was truly seen with the value at some time of it.
	// An API that calls users offline hides who comes online; and one whom a
	// complete run missed, because the user was out of the users table
	// while the page was read and back in it before the run ended, is taken as seen.
	if !u.life.missed && !slices.ContainsFunc(u.told, func(a told) bool {
		return a.value == u.life.value && !a.instant.Before(row.bracket[0]) && a.instant.Before(at) && (a.lie || u.truth(tr.begin, a.instant) == a.value)
	}) {
		tr.wrong = append(tr.wrong, fmt.Sprintf("%s: nobody has seen the previous value %s", u.id, row))
	}
	u.want = append(u.want, row)
	return row
}

func (tr *trial) rejected(u *simUser, run *simRun, asked, now time.Time) {
	switch {
	case u.fail == nil && u.life == nil:
		u.fail = &failing{last: now}
	case u.fail == nil:
		u.fail = &failing{knownAt: u.known(run), last: now}
	case u.life != nil && run.maxGap > 0 && now.Sub(u.known(run)) > run.maxGap:
		u.fail.last = now
		if !u.life.answered.After(asked) { // else it is overtaken
			tr.ends(u, run, now, "rejected {}")
			u.want[len(u.want)-1].about = true
			u.life = nil
		}
	case run.recorded.Equal(run.start) || u.fail.contradicted:
		u.fail.last = now
	}
	u.fail.contradicted = false
}

// pull reads who left or lapsed since the last time.
func (tr *trial) pull() {
	type row struct {
		UserID, State string
		ObservedAt    time.Time
		RunID         int64
	}
	rows, err := tr.db.Query(tr.ctx, `SELECT user_id, state::text, observed_at, run_id FROM syncer.presence_history
WHERE app_id = $1 AND state IN ('removed', 'rejected') AND observed_at > $2 ORDER BY observed_at`, tr.app.ID, tr.pulled)
	if err != nil {
		tr.t.Fatal(err)
	}
	ended, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.pulled = tr.clock.Now()
	for _, e := range ended {
		u, run := tr.users[e.UserID], tr.runs[e.RunID]
		tr.say("%s is %s in (…, %s]", u.id, e.State, stamp(e.ObservedAt))
		last := &simRow{}
		if len(u.want) > 0 {
			last = &u.want[len(u.want)-1]
		}
		switch {
		case e.State == "rejected" && last.about && last.bracket[1].Sub(e.ObservedAt).Abs() < time.Millisecond:
			last.bracket[1], last.about = e.ObservedAt, false
		case e.State == "rejected":
			tr.wrong = append(tr.wrong, fmt.Sprintf("%s lapsed, but should not have", u.id))
		case u.life == nil || u.insideAt(e.ObservedAt):
			tr.wrong = append(tr.wrong, fmt.Sprintf("%s was removed, but is in the table or was not known", u.id))
		default:
			tr.ends(u, run, e.ObservedAt, "removed {}")
			u.life = nil
			run.removed++
		}
	}
}

// look looks what has become of the runs.
func (tr *trial) look() {
	tr.t.Helper()
	tr.pull()
	for _, run := range tr.runs {
		if run.status != repo.RunRunning {
			continue
		}
		now, err := tr.stores[0].FindRun(tr.ctx, run.id)
		if err != nil {
			tr.t.Fatal(err)
		}
		if now.Status != repo.RunRunning {
			run.held = now.HeldBack > 0
			tr.closed(run, now.Status)
		}
	}
	if len(tr.wrong) > 0 {
		tr.t.Fatal(tr.wrong[0])
	}
}

func (tr *trial) closed(run *simRun, status repo.RunStatus) {
	now := tr.clock.Now()
	tr.say("run %d is %s", run.id, status)
	run.status = status
	clear(run.owners)
	if status == repo.RunFailed || status == repo.RunCancelled {
		return
	}
	for _, u := range tr.users {
		if !run.complete() {
			break
		}
		if run.recorded.Equal(run.start) && u.fail != nil && u.fail.last.Before(run.start) {
			u.fail = nil
		}
		if u.life == nil {
			continue
		}
		u.life.missed = u.life.missed || !run.met[u.id]
		if !u.insideIn(run.start, now) {
			tr.wrong = append(tr.wrong, fmt.Sprintf("%s has a snapshot, but was not in the table during run %d", u.id, run.id))
		}
	}
	run.looked()
	if run.complete() {
		tr.completed = append(tr.completed, run)
	}
}

// looked finds the stretch in which the run has looked: up to its last page,
// since it began, was opened again, or went on after it stood still.
func (r *simRun) looked() {
	last := len(r.looks) - 1
	pages := func(l look) bool { return l.page }
	switch {
	case !slices.ContainsFunc(r.looks, pages):
		r.from, r.until = r.looks[last].at, r.looks[last].at
	case !r.looks[last].page: // opened again when there was nothing left to do
		for !r.looks[last].page {
			last--
		}
		r.from, r.until = r.looks[last].at, r.looks[last].at
	default:
		r.from, r.until = r.looks[last].at, r.looks[last].at
		for r.looks[last].page {
			last--
			if r.maxGap > 0 && r.from.Sub(r.looks[last].at) > r.maxGap {
				break
			}
			r.from = r.looks[last].at
		}
	}
}

// check compares all that is stored with all that happened.
func (tr *trial) check() {
	tr.t.Helper()
	tr.look()
	want := map[string][]string{}
	for id, u := range tr.users {
		for _, row := range u.want {
			want[id] = append(want[id], row.String())
		}
	}
	tr.same("histories", want, tr.histories())
	tr.same("snapshots", tr.wantSnapshots(), tr.lines(`SELECT user_id, state::text, replace(platforms::text, ' ', ''), changed_at, asked_at, since, since_after, told_at, run_id, last_online_after, last_online_at
FROM syncer.presence_snapshot WHERE app_id = $1 ORDER BY 1`))
	tr.same("failing users", tr.wantFailures(), tr.lines(`SELECT user_id, known_at FROM syncer.user_failure WHERE app_id = $1 ORDER BY 1`))
	tr.same("runs", tr.wantRuns(), tr.lines(`SELECT run_id, status, complete, users, changed, failed, calls, removed FROM syncer.sync_run WHERE app_id = $1 AND status <> 'skipped' AND trigger <> 'hint' ORDER BY 1`))
	tr.same("hint runs", tr.wantHintRuns(), tr.lines(`SELECT run_id, status, complete, users, changed, calls FROM syncer.sync_run WHERE app_id = $1 AND trigger = 'hint' AND users > 0 ORDER BY 1`))
	tr.same("gaps", tr.wantGaps(), tr.lines(`SELECT date_trunc('second', started_at), date_trunc('second', ended_at), date_trunc('second', last_seen_from), date_trunc('second', next_seen_by), run_id
FROM syncer.observation_gap WHERE app_id = $1 ORDER BY ended_at`))
}

func (tr *trial) same(what string, want, got any) {
	tr.t.Helper()
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		tr.t.Fatalf("%s (-true +stored):\n%s", what, diff)
	}
}

// lines gives the rows of a statement about the trial's app, each as a line.
func (tr *trial) lines(sql string) []string {
	tr.t.Helper()
	rows, err := tr.db.Query(tr.ctx, sql, tr.app.ID)
	if err != nil {
		tr.t.Fatalf("%s: %v", sql, err)
	}
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		for i, value := range values {
			switch v := value.(type) {
			case time.Time:
				values[i] = stamp(v)
			case nil:
				values[i] = "-"
			}
		}
		return line(values...), err
	})
	if err != nil {
		tr.t.Fatalf("%s: %v", sql, err)
	}
	return lines
}

// line is words with blanks between them.
func line(words ...any) string { return strings.TrimSuffix(fmt.Sprintln(words...), "\n") }

func (tr *trial) histories() map[string][]string {
	tr.t.Helper()
	rows, err := tr.db.Query(tr.ctx, `SELECT user_id, coalesce(prev_state::text, ''), state::text, platforms::text, not_before, observed_at, prev_since, prev_since_after, told_at, prev_told_at, run_id
FROM syncer.presence_history WHERE app_id = $1 ORDER BY observed_at`, tr.app.ID)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer rows.Close()
	histories := map[string][]string{}
	for rows.Next() {
		var id, state, platforms string
		var row simRow
		var notBefore, prevSince *time.Time
		if err := rows.Scan(&id, &row.prev, &state, &platforms, &notBefore, &row.bracket[1], &prevSince, &row.prevAfter, &row.toldAt, &row.prevTold, &row.run); err != nil {
			tr.t.Fatal(err)
		}
		if notBefore != nil && prevSince != nil {
			row.bracket[0], row.prevSince = *notBefore, *prevSince
		}
		parsed, err := imclient.ParsePlatforms([]byte(platforms))
		if err != nil {
			tr.t.Fatal(err)
		}
		row.value = state + " " + parsed.String()
		histories[id] = append(histories[id], row.String())
	}
	if err := rows.Err(); err != nil {
		tr.t.Fatal(err)
	}
	return histories
}

// sorted gives the users in order.
func (tr *trial) sorted() []*simUser {
	users := make([]*simUser, 0, len(tr.users))
	for _, u := range tr.users {
		users = append(users, u)
	}
	slices.SortFunc(users, func(a, b *simUser) int { return cmp.Compare(a.id, b.id) })
	return users
}

func (tr *trial) wantSnapshots() (lines []string) {
	for _, u := range tr.sorted() {
		if l := u.life; l != nil {
			lastAfter, lastAt := "-", "-"
			if l.lastOnline != nil {
				lastAfter, lastAt = stamp(l.lastOnline[0]), stamp(l.lastOnline[1])
			}
			lines = append(lines, line(u.id, spell(l.value), stamp(l.answered), stamp(l.asked), stamp(l.since), stampOr(l.sinceAfter), stampOr(l.toldAt), l.run, lastAfter, lastAt))
		}
	}
	return lines
}

func (tr *trial) wantFailures() (lines []string) {
	for _, u := range tr.sorted() {
		if u.fail != nil {
			var knownAt *time.Time
			if !u.fail.knownAt.IsZero() {
				knownAt = &u.fail.knownAt
			}
			lines = append(lines, line(u.id, stampOr(knownAt)))
		}
	}
	return lines
}

func (tr *trial) sortedRuns() []*simRun {
	runs := make([]*simRun, 0, len(tr.runs))
	for _, run := range tr.runs {
		runs = append(runs, run)
	}
	slices.SortFunc(runs, func(a, b *simRun) int { return cmp.Compare(a.id, b.id) })
	return runs
}

func (tr *trial) wantRuns() (lines []string) {
	for _, r := range tr.sortedRuns() {
		status := r.status
		if status == repo.RunSucceeded && (r.Failed > 0 || r.held) {
			status = repo.RunPartial
		}
		lines = append(lines, line(r.id, status, r.complete(), r.Users, r.Changed, r.Failed, r.calls, r.removed))
	}
	return lines
}

// wantGaps are the stretches between what complete runs looked at, in the order
// in which these ended. Times are cut to the second: the clock's microseconds
// make up much less, and all that is waited for is whole seconds.
func (tr *trial) wantGaps() (lines []string) {
	var prev *simRun
	second := func(at time.Time) string { return stamp(at.Truncate(time.Second)) }
	for _, run := range tr.completed {
		if prev != nil && prev.until.Before(run.from) {
			allowed := prev.maxGap
			if run.maxGap > 0 {
				allowed = min(allowed, run.maxGap)
			}
			if allowed == 0 || run.from.Sub(prev.until) > allowed {
				lines = append(lines, line(second(prev.until), second(run.from), second(prev.start), second(run.until), run.id))
			}
		}
		if prev == nil || run.until.After(prev.until) {
			prev = run
		}
	}
	return lines
}
