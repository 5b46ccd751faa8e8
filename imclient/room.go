package imclient

import (
	"context"
	"sync"
)

const (
	// maxReading limits the memory of the answers being read by all clients of a process.
	maxReading = 48 << 20
	// readingBytes is the memory of one answer: the buffers of connection, gzip and
	// decoder, and one value.
	readingBytes = 2 * maxValue
	// keptPerUser is what is kept of each user until the answer is complete.
	keptPerUser = 512
)

// processRoom is the room of the process.
var processRoom = &room{free: maxReading, held: make(map[*HTTP]int64)}

// room limits the memory of the answers being read by several clients. No client can
// starve the others: each may hold at most as much as remains free, so one client gets half
// of the room, and n clients an (n+1)th each. A client that holds nothing always enters. An
// answer reserves all its memory before its first byte is read, for no longer than its
// call's timeout, so that answers cannot deadlock.
type room struct {
	mu      sync.Mutex
	free    int64 // negative if clients that held nothing entered a full room
	held    map[*HTTP]int64
	changed chan struct{} // closed when memory is released; nil if no client waits
}

// enter waits for n bytes and reserves them for a client. The caller must call leave.
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
