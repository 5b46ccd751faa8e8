package imclient

import (
	"context"
	"sync"
)

const (
	// maxReading is what the answers being read take in a process, over all its
	// clients.
	maxReading = 48 << 20
	// readingBytes is what one of them takes: the buffers of connection, gzip and
	// decoder, and one value.
	readingBytes = 2 * maxValue
	// keptPerUser is what is kept of an answer about each user, until it is whole.
	keptPerUser = 512
)

// processRoom is the room of all clients of the process.
var processRoom = &room{free: maxReading, held: make(map[*HTTP]int64)}

// room bounds the memory that the answers being read take, over several clients.
// No client can keep the others out. It may hold at most as much as is left free:
// one greedy client has half of the room, and of n each comes to have an (n+1)th,
// as much as the next one may take. A client that holds nothing is always let in.
// An answer takes all that it will need before its first byte is read, and for no
// longer than its call's timeout, so that answers never wait in a circle.
type room struct {
	mu      sync.Mutex
	free    int64 // below 0 by what clients took that held nothing
	held    map[*HTTP]int64
	changed chan struct{} // closed when something is given back; nil: no client waits
}

// enter takes n bytes for a client, and waits for them. The caller must call leave.
func (r *room) enter(ctx context.Context, client *HTTP, n int64) (leave func(), err error) {
	for {
		r.mu.Lock()
		held := r.held[client]
		if held == 0 || held+n <= r.free-n {
			r.held[client] = held + n
			r.free -= n
			r.mu.Unlock()
			return func() { r.leave(client, n) }, nil
		}
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *room) leave(client *HTTP, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free += n
	if r.held[client] -= n; r.held[client] == 0 {
		delete(r.held, client)
	}
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}
