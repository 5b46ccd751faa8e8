package jobs

import (
	"slices"
	"strings"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

// diff compares the answers with the snapshots; only what is new or different is
// written.
func (s *sweep[V]) diff(run repo.Run, p *page[V], counts repo.RangeCounts) repo.Page[V] {
	out := repo.Page[V]{LastKey: p.LastKey, Counts: counts, Changes: make([]repo.Change[V], 0, p.different())}
	seen := make(map[V]int64)
	for u := range p.sights() {
		seen[u.value]++
		failed, failing := p.known.Failing[u.userID]
		if !u.prev.Exists() && failed.LastAt.After(u.answer.AskedAt) {
			continue // the user may have lapsed since, on another page
		}
		out.Known.Add(u.userID, p.rows(u.userID))
		if failing {
			out.Recovered = append(out.Recovered, repo.Recovery{UserID: u.userID, AskedAt: u.answer.AskedAt})
		}
		if u.prev.Exists() {
			out.Kept.Add(u.userID, p.rows(u.userID))
			if u.prev.Value == u.value {
				continue
			}
		}
		change := repo.Change[V]{UserID: u.userID, Value: u.value, AskedAt: u.answer.AskedAt, ObservedAt: u.answer.AnsweredAt}
		if u.prev.Exists() {
			change.Prev = u.prev
			change.NotBefore = lastKnown(u.prev, run.PrevCompleteAt)
			if failing {
				change.NotBefore = later(u.prev.AskedAt, failed.KnownAt)
			}
		}
		out.Changes = append(out.Changes, change)
	}
	for _, id := range p.contradicted {
		seen[p.known.Snapshot(p.place(id, 0)).Value]++
		s.contradict(run, p, &out, id)
	}
	for value, users := range seen {
		s.kind.count(counts, value, users)
	}
	for i := range p.result.Answers {
		answer := &p.result.Answers[i]
		for _, rejected := range answer.Rejected {
			s.reject(run, p, &out, rejected, answer.AskedAt)
		}
	}
	slices.SortFunc(out.Changes, func(a, b repo.Change[V]) int { return strings.Compare(a.UserID, b.UserID) })
	out.Users = int64(len(p.IDs) + p.Bad)
	out.Failed += int64(p.Bad)
	out.Calls, out.Retries = p.result.Calls.Made, p.result.Calls.Retries
	if p.Bad > 0 {
		out.Failures = append(out.Failures, repo.Failure{UserError: badRows(p)})
	}
	return out
}

// reject records that the API rejected a user. A user who has been rejected for
// longer than the run's max_gap lapses: the value is unknown from then on. With a
// lapse the failure is recorded anew, so that no answer from before the lapse brings
// the user back.
func (s *sweep[V]) reject(run repo.Run, p *page[V], out *repo.Page[V], rejected imclient.UserError, asked time.Time) {
	failure := repo.Failure{UserError: rejected}
	prev := p.known.Snapshot(p.place(rejected.UserID, 0))
	failed, failing := p.known.Failing[rejected.UserID]
	lapses := false
	if prev.Exists() {
		out.Kept.Add(rejected.UserID, p.rows(rejected.UserID))
		failure.KnownAt = lastKnown(prev, run.PrevCompleteAt)
		now := s.store.Now()
		knownAt := later(prev.AskedAt, failed.KnownAt)
		if lapses = failing && run.MaxGap > 0 && now.Sub(knownAt) > run.MaxGap; lapses {
			out.Lapses = append(out.Lapses, repo.Lapse{UserID: rejected.UserID, ChangedAt: prev.ChangedAt, NotBefore: knownAt, AskedAt: asked, ObservedAt: now})
		} else {
			out.Known.Add(rejected.UserID, p.rows(rejected.UserID))
		}
	}
	s.fail(run, p, out, failure, lapses)
}

// fail counts a user without a new value. A failure that continues is recorded
// already; anew records it all the same.
func (s *sweep[V]) fail(run repo.Run, p *page[V], out *repo.Page[V], failure repo.Failure, anew bool) {
	out.Failed++
	if failed, failing := p.known.Failing[failure.UserID]; failing && failed.Code == failure.Code && !run.RecordFailures && !anew {
		return
	}
	out.Failures = append(out.Failures, failure)
}

// lastKnown returns when a user was last known to have the snapshot's value: when the
// previous complete run, which saw it again, began, or when the question was sent
// that brought it. A snapshot that is newer than the beginning of that run may have
// overtaken what the run saw. If the API has rejected the user since, user_failure
// has the time instead.
func lastKnown[V comparable](prev *repo.Snapshot[V], prevComplete *time.Time) time.Time {
	if prevComplete == nil || prev.ChangedAt.After(*prevComplete) {
		return prev.AskedAt
	}
	return *prevComplete
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
