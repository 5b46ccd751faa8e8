package ask

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncer/imclient"
)

// trickyAPI refuses each batch that holds a poisonous id, and lets calls fail as
// a script says.
type trickyAPI struct {
	poison  map[string]imclient.Class // ClassBadBatch or ClassPerUser
	dropped map[string]bool           // rejected within an answer
	script  []byte                    // what happens to the calls; each batch has its own part of it
	cancel  context.CancelFunc

	mu        sync.Mutex
	tries     map[string]int // by batch
	calls     int64          // that were sent
	unplanned int64          // of them, those that failed by the script
	given     []*imclient.Error
}

// ask answers one batch. A quarter of what a script can say are failures.
func (a *trickyAPI) ask(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil {
		return imclient.Answer[imclient.Presence]{}, ctx.Err()
	}
	batch := fmt.Sprintf("%s and %d", ids[0], len(ids))
	step := byte(0)
	if len(a.script) > 0 {
		first, err := strconv.Atoi(ids[0][1:])
		if err != nil {
			panic(err)
		}
		step = a.script[(first+7*len(ids)+a.tries[batch])%len(a.script)]
	}
	a.tries[batch]++
	answer := imclient.Answer[imclient.Presence]{Calls: 1}
	fail := func(e *imclient.Error) (imclient.Answer[imclient.Presence], error) {
		a.given = append(a.given, e)
		a.calls += int64(answer.Calls)
		return answer, fmt.Errorf("wrapped: %w", e)
	}
	switch step % 16 {
	case 12:
		a.unplanned++
		return fail(&imclient.Error{Class: imclient.ClassTransient, Code: "12"})
	case 13: // the gate has no call time; nothing is sent
		answer.Calls = 0
		return fail(&imclient.Error{Class: imclient.ClassThrottled, Code: "13", RetryAfter: time.Duration(step>>4) * 3 * time.Second})
	case 14:
		if step>>4 == 1 {
			a.cancel()
			return answer, context.Canceled
		}
		a.unplanned++
		return fail(&imclient.Error{Class: imclient.ClassThrottled, Code: "14"})
	case 15:
		if step>>4 == 1 {
			a.unplanned++
			return fail(&imclient.Error{Class: imclient.ClassFatal, Code: "15"})
		}
	}
	for _, id := range ids {
		if class, ok := a.poison[id]; ok {
			return fail(&imclient.Error{Class: class, Code: "90003", Text: "poison"})
		}
	}
	for _, id := range ids {
		if a.dropped[id] {
			answer.Rejected = append(answer.Rejected, imclient.UserError{UserID: id, Code: imclient.CodeMissing})
		} else {
			answer.Observed = append(answer.Observed, imclient.Observed[imclient.Presence]{UserID: id, Value: imclient.Presence{State: imclient.StateOnline}})
		}
	}
	a.calls++
	return answer, nil
}

// mostCalls is how many calls a batch of n users takes at most of whom p are
// poisonous: the first, and two for each batch that is halved, of which there are
// no more than p at each of the log2(n) depths, and fewer than n at all.
func mostCalls(n, p int) int64 {
	depth := bits.Len(uint(n - 1))
	return int64(min(1+2*p*depth, 2*n-1))
}

// FuzzBisect lets any users be poisonous and any calls fail. Each byte of users
// is one user: poisonous or not.
func FuzzBisect(f *testing.F) {
	one := make([]byte, 500)
	one[123] = 1
	all := make([]byte, 40)
	for i := range all {
		all[i] = byte(i)%2 + 1
	}
	f.Add(one, uint16(500), []byte{})
	f.Add(one, uint16(100), []byte{12, 0, 0, 0, 0, 0, 0, 0})
	f.Add(all, uint16(500), []byte{})
	f.Add(all, uint16(7), []byte{0, 12, 14, 0, 13})
	f.Add([]byte{1, 0, 3, 2}, uint16(4), []byte{12})
	f.Add([]byte{0, 1}, uint16(1), []byte{13 + 11<<4})
	f.Add([]byte{0, 1, 0}, uint16(2), []byte{0, 15 + 1<<4, 0, 14 + 1<<4})
	f.Fuzz(func(t *testing.T, users []byte, maxBatch uint16, script []byte) {
		if len(users) > 1000 {
			users = users[:1000]
		}
		synctest.Test(t, func(t *testing.T) { // in which backoffs take no time
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			api := &trickyAPI{poison: map[string]imclient.Class{}, dropped: map[string]bool{}, script: script, tries: map[string]int{}, cancel: cancel}
			batch := int(maxBatch)%500 + 1
			ids := make([]string, len(users))
			most := int64(0)
			poison := 0
			for i, kind := range users {
				ids[i] = "u" + strconv.Itoa(i)
				switch kind {
				case 1:
					api.poison[ids[i]] = imclient.ClassBadBatch
				case 2:
					api.poison[ids[i]] = imclient.ClassPerUser
				case 3:
					api.dropped[ids[i]] = true
				}
				if kind == 1 || kind == 2 {
					poison++
				}
				if (i+1)%batch == 0 || i == len(users)-1 {
					most += mostCalls(i%batch+1, poison)
					poison = 0
				}
			}
			var counted Calls
			var mu sync.Mutex
			asked := API[imclient.Presence]{Query: api.ask, MaxBatch: batch, Count: func(c Calls) {
				mu.Lock()
				defer mu.Unlock()
				counted.add(c)
			}}
			var result Result[imclient.Presence]
			err := asked.All(ctx, ids, &result)

			ended := map[string]int{}
			for _, answer := range result.Answers {
				for _, o := range answer.Observed {
					ended[o.UserID]++
					if api.dropped[o.UserID] || api.poison[o.UserID] != 0 {
						t.Errorf("%s was observed", o.UserID)
					}
				}
				for _, r := range answer.Rejected {
					ended[r.UserID]++
					if poisonous := r.Code == "90003"; poisonous != (api.poison[r.UserID] != 0) || !poisonous && !api.dropped[r.UserID] {
						t.Errorf("rejected is %+v", r)
					}
				}
			}
			for _, id := range ids {
				if ended[id] > 1 || ended[id] == 0 && err == nil {
					t.Errorf("%s ended %d times", id, ended[id])
				}
			}
			if len(ended) > len(ids) {
				t.Errorf("%d users became %d", len(ids), len(ended))
			}
			batches := int64(len(ids)+batch-1) / int64(batch)
			if ctx.Err() == nil && (result.Calls.Made != api.calls || result.Calls != counted) {
				t.Errorf("%d calls were sent, counted are %+v and %+v", api.calls, result.Calls, counted)
			}
			if err == nil && (api.calls-api.unplanned > most || result.Calls.Retries != api.calls-batches) {
				t.Errorf("%d calls, %d of them failed by the script, want %d at most; %+v", api.calls, api.unplanned, most, result.Calls)
			}
			checkBisectError(t, ctx, api, err)
		})
	})
}

// checkBisectError checks that an error is one that the API gave, unchanged, and
// none that halving or asking again is there for.
func checkBisectError(t *testing.T, ctx context.Context, api *trickyAPI, err error) {
	t.Helper()
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return
	}
	got, ok := errors.AsType[*imclient.Error](err)
	if !ok {
		t.Fatalf("got %#v", err)
	}
	for _, given := range api.given {
		if given == got {
			if got.Class == imclient.ClassBadBatch || got.Class == imclient.ClassPerUser {
				t.Errorf("the batch failed with %v", err)
			}
			return
		}
	}
	t.Errorf("no call failed with %v", err)
}
