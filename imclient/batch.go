package imclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Batch collects the answers about the ids of one batch and returns them as an Answer in
// the order of the ids. It guarantees that each id ends in exactly one of Observed and
// Rejected, and that an id without a useful answer is asked for once more before it is
// rejected. Not safe for concurrent use.
type Batch[V comparable] struct {
	// UnknownPlatforms is copied to the Answer.
	UnknownPlatforms int

	calls               int // requests sent, for httpRequest.Sent
	slots               []slot[V]
	place               map[string]int // id → index in slots; created when needed
	next                int            // the next slot of an answer in the order of the request
	faults              map[int]fault  // by slot; of an open slot: the fault if it stays open
	observed, unasked   int
	askedAt, answeredAt time.Time
}

// slot is one id.
type slot[V comparable] struct {
	id         string
	open, seen bool // seen: value is set
	value      V
}

// fault is why an id is rejected.
type fault struct{ code, text string }

var missing = fault{CodeMissing, "the answer says nothing about this user"}

// newBatch returns a batch of distinct ids; of repeated ones it keeps the first. It
// rejects those for which check returns a fault, with CodeInvalidID. check may be nil.
func newBatch[V comparable](ids []string, check func(id string) (fault string)) *Batch[V] {
	b := &Batch[V]{slots: make([]slot[V], 0, len(ids))}
	ascending := true
	for i, id := range ids {
		ascending = ascending && (i == 0 || ids[i-1] < id)
		b.slots = append(b.slots, slot[V]{id: id, open: true})
	}
	if !ascending {
		b.dropDuplicates()
	}
	for i := range b.slots {
		if check == nil {
			break
		}
		if fault := check(b.slots[i].id); fault != "" {
			b.slots[i].open = false
			b.blameSlot(i, CodeInvalidID, fault)
		}
	}
	return b
}

func (b *Batch[V]) dropDuplicates() {
	seen := make(map[string]bool, len(b.slots))
	b.slots = slices.DeleteFunc(b.slots, func(s slot[V]) bool {
		twice := seen[s.id]
		seen[s.id] = true
		return twice
	})
}

// Observe adds the value of an id. The first value of an id counts; an id that is not in
// the batch is counted and dropped.
func (b *Batch[V]) Observe(id string, value V) {
	if i := b.find(id); i >= 0 {
		s := &b.slots[i]
		s.open, s.seen, s.value = false, true, value
		b.observed++
	}
}

// Reject rejects an id, without asking for it again.
func (b *Batch[V]) Reject(id, code, text string) {
	if i := b.find(id); i >= 0 {
		b.slots[i].open = false
		b.blameSlot(i, code, text)
	}
}

// Doubt makes an id be asked for once more, and sets why it is rejected if that does not
// help.
func (b *Batch[V]) Doubt(id, code, text string) {
	if i := b.find(id); i >= 0 {
		b.blameSlot(i, code, text)
	}
}

func (b *Batch[V]) blameSlot(i int, code, text string) {
	if b.faults == nil {
		b.faults = make(map[int]fault)
	}
	b.faults[i] = fault{code, text}
}

// find returns the open slot of an id, -1 if it is settled or not in the batch. It tries
// the next slot first, because answers are mostly in the order of the request.
func (b *Batch[V]) find(id string) int {
	i := b.next
	if i >= len(b.slots) || b.slots[i].id != id {
		var asked bool
		if i, asked = b.index(id); !asked {
			b.unasked++
			return -1
		}
	}
	b.next = i + 1
	if !b.slots[i].open {
		return -1
	}
	return i
}

func (b *Batch[V]) index(id string) (i int, asked bool) {
	if b.place == nil {
		b.place = make(map[string]int, len(b.slots))
		for i := range b.slots {
			b.place[b.slots[i].id] = i
		}
	}
	i, asked = b.place[id]
	return i, asked
}

// Dated extends the answer's times to those of r, unless r is the zero Reply of a failed
// call.
func (b *Batch[V]) Dated(r Reply) {
	if r.AskedAt.IsZero() {
		return
	}
	if b.askedAt.IsZero() || r.AskedAt.Before(b.askedAt) {
		b.askedAt = r.AskedAt
	}
	if r.AnsweredAt.After(b.answeredAt) {
		b.answeredAt = r.AnsweredAt
	}
}

// open lists the ids that are not settled.
func (b *Batch[V]) open() []string {
	ids := make([]string, 0, len(b.slots)-b.observed)
	for i := range b.slots {
		if b.slots[i].open {
			ids = append(ids, b.slots[i].id)
		}
	}
	return ids
}

// settle asks for the open ids, then once more for those still open, which are rejected
// after that. ask makes one call and adds its answer to the batch. If no call is needed,
// the answer has the time of now. An error of ask is returned, with only Calls and times in
// the answer, except in two cases:
//
//   - ClassPerUser: a single user asked for is rejected. For several it becomes
//     ClassBadBatch, because providers use such codes for one user and for all.
//   - A provider's code in the second round, after users were observed in the first: the
//     open ids are rejected with it. Otherwise a user that always breaks the call would
//     fail its batch each time.
func (b *Batch[V]) settle(ctx context.Context, now func() time.Time, ask func(ctx context.Context, ids []string) error) (Answer[V], error) {
	const rounds = 2
	begun := now()
	for round := range rounds {
		ids := b.open()
		b.next = 0
		if len(ids) == 0 {
			break
		}
		if err := ask(ctx, ids); err != nil {
			if err = b.blame(err, ids, round > 0); err != nil {
				return Answer[V]{Calls: b.calls, AskedAt: begun, AnsweredAt: now()}, err
			}
		}
	}
	return b.answer(now), nil
}

// blame rejects the ids if err is about them; otherwise it returns the batch's error.
func (b *Batch[V]) blame(err error, ids []string, again bool) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	if e.Class == ClassPerUser && len(ids) == 1 || again && b.observed > 0 && blamesUsers(e) {
		for _, id := range ids {
			b.Reject(id, e.Code, e.Text)
		}
		return nil
	}
	if e.Class == ClassPerUser {
		whole := *e
		whole.Class = ClassBadBatch
		return &whole
	}
	return err
}

// blamesUsers reports whether e, from a call for users that an earlier answer left open,
// may be about them: not about a limit, a setting, or an unreachable server.
func blamesUsers(e *Error) bool {
	return e.Class == ClassPerUser || e.Class == ClassBadBatch || e.Class == ClassTransient && e.Code != ""
}

// answer returns the answer. It rejects ids that are still open.
func (b *Batch[V]) answer(now func() time.Time) Answer[V] {
	a := Answer[V]{
		Observed: make([]Observed[V], 0, b.observed), Unasked: b.unasked, UnknownPlatforms: b.UnknownPlatforms,
		AskedAt: b.askedAt, AnsweredAt: b.answeredAt, Calls: b.calls,
	}
	if a.AskedAt.IsZero() {
		a.AskedAt = now()
		a.AnsweredAt = a.AskedAt
	}
	for i := range b.slots {
		s := &b.slots[i]
		if s.seen {
			a.Observed = append(a.Observed, Observed[V]{UserID: s.id, Value: s.value})
			continue
		}
		why, known := b.faults[i]
		if !known {
			why = missing
		}
		a.Rejected = append(a.Rejected, UserError{UserID: s.id, Code: why.code, Text: why.text})
	}
	return a
}

// Ask makes the calls about a batch of at most call.MaxUsers distinct ids, which check must
// accept; see Batch. ask makes one call, about some of the ids, and adds its answer to the
// batch. A larger batch is a ClassBadBatch error without a call, so that a caller that halves
// bad batches recovers. Other errors are those of ask.
func Ask[V comparable](ctx context.Context, x *Exchange, call Call, ids []string, check func(id string) (fault string),
	ask func(ctx context.Context, call Call, ids []string, b *Batch[V]) error) (Answer[V], error) {
	if len(ids) > call.MaxUsers {
		return Answer[V]{}, &Error{Provider: x.HTTP.provider, API: call.API, Class: ClassBadBatch,
			Text: fmt.Sprintf("%d users given, one call takes at most %d", len(ids), call.MaxUsers)}
	}
	b := newBatch[V](ids, check)
	return b.settle(ctx, x.HTTP.now, func(ctx context.Context, ids []string) error {
		call.users, call.sent = len(ids), &b.calls
		return ask(ctx, call, ids, b)
	})
}
