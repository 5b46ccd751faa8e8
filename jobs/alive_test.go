package jobs

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestAlive: rounds that fail are signs of life, a round that hangs is none.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{}
		e := &Engine{shared: &shared{config: Config{RescueAfter: time.Minute}}, keeper: k}
		if e.Alive() {
			t.Error("alive before it was started")
		}
		ctx, cancel := context.WithCancel(t.Context())
		hanging := false
		k.heartbeat.beat()
		do := k.heartbeat.of(func(ctx context.Context) error {
			if hanging {
				<-ctx.Done()
			}
			return errors.New("the database is away")
		})
		if !e.Alive() {
			t.Error("not alive when it was started")
		}
		for range 10 {
			<-time.After(10 * time.Second)
			if err := do(ctx); err == nil || !e.Alive() {
				t.Fatalf("a round that failed with %v: alive %t", err, e.Alive())
			}
		}
		hanging = true
		over := make(chan error)
		go func() { over <- do(ctx) }()
		<-time.After(time.Minute + time.Second)
		if e.Alive() {
			t.Error("alive though a round hangs")
		}
		cancel()
		<-over
	})
}
