package imclient

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func newTestRoom(size int64) *room {
	return &room{free: size, held: make(map[*HTTP]int64)}
}

// greed is a client that takes as much as it can get.
type greed struct {
	HTTP
	leaves []func()
}

func (g *greed) take(ctx context.Context, r *room, n int64) {
	for {
		leave, err := r.enter(ctx, &g.HTTP, n)
		if err != nil {
			return
		}
		g.leaves = append(g.leaves, leave)
	}
}

// TestRoom_greedy: clients that take all that they can get leave room for the
// next one: at once for one answer, and as theirs end and come again, for as much
// as each of them has.
func TestRoom_greedy(t *testing.T) {
	const size, one = 1000, 10
	now, cancel := context.WithCancel(t.Context())
	cancel()
	r := newTestRoom(size)
	var all []*greed
	for range 20 {
		next := &greed{}
		next.take(now, r, one)
		if n := len(next.leaves); n < 1 || n > size/one/2 {
			t.Fatalf("after %d greedy clients the next one got %d answers at once", len(all), n)
		}
		all = append(all, next)
		if r.free < -one*int64(len(all)) {
			t.Fatalf("%d clients left %d free", len(all), r.free)
		}
		for range 4 * size / one / len(all) {
			for _, g := range all {
				g.leaves[0]()
				g.leaves = g.leaves[1:]
				g.take(now, r, one)
			}
		}
		for _, g := range all {
			got, fair := int64(len(g.leaves))*one, int64(size/(len(all)+1))
			if got < fair-2*one || got > max(fair, one)+2*one {
				t.Fatalf("one of %d greedy clients has %d, want about %d", len(all), got, fair)
			}
		}
	}
}

// TestRoom_waits: who finds no room gets what others give back, unless its context
// ends first.
func TestRoom_waits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, b := newTestRoom(100), &HTTP{}, &HTTP{}
		leaveA, err := r.enter(t.Context(), a, 40)
		if err != nil {
			t.Fatal(err)
		}
		leaveB, err := r.enter(t.Context(), b, 30)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		got, left := make(chan func(), 1), make(chan error, 1)
		go func() {
			leave, err := r.enter(t.Context(), a, 20)
			if err != nil {
				t.Error(err)
			}
			got <- leave
		}()
		go func() {
			_, err := r.enter(ctx, a, 20)
			left <- err
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if len(got)+len(left) == 0 {
			t.Error("who waits does not listen to the context")
		}
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if len(got) > 0 {
			t.Error("a client has more than it leaves free")
		}
		leaveA()
		(<-got)()
		leaveB()
		if r.free != 100 || len(r.held) != 0 {
			t.Errorf("all was given back: %d free, %v held", r.free, r.held)
		}
	})
}
