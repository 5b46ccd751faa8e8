package e2e

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy is what lies between syncer and a server, and can lose connections
// without telling anybody: as a firewall that forgot them does, or a host that
// is gone. Neither end is notified, and what it sends is swallowed.
type proxy struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cut   direction // of the connections that come
	deaf  bool      // those that come are ended at once
	pairs []*pair
}

// direction is what of a connection is lost.
type direction int

const (
	toServer direction = 1 << iota
	toClient
	bothWays = toServer | toClient
)

// pair is a connection and the one that it goes on as.
type pair struct {
	client, server net.Conn
	mu             sync.Mutex
	cut            direction
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.connect(client, &all) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, c := range p.pairs {
			c.client.Close()
			c.server.Close()
		}
		p.mu.Unlock()
		all.Wait()
	})
	return p
}

func (p *proxy) connect(client net.Conn, all *sync.WaitGroup) {
	p.mu.Lock()
	deaf := p.deaf
	p.mu.Unlock()
	server, err := net.Dial("tcp", p.to)
	if err != nil || deaf {
		client.Close()
		if err == nil {
			server.Close()
		}
		return
	}
	c := &pair{client: client, server: server}
	p.mu.Lock()
	c.cut = p.cut
	p.pairs = append(p.pairs, c)
	p.mu.Unlock()
	all.Go(func() { c.forward(server, client, toServer) })
	all.Go(func() { c.forward(client, server, toClient) })
}

// forward passes on what comes, and the end of it, unless that way is cut.
func (c *pair) forward(to io.WriteCloser, from io.ReadCloser, way direction) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		c.mu.Lock()
		lost := c.cut&way != 0
		c.mu.Unlock()
		switch {
		case lost && err != nil:
			return
		case lost:
		case err != nil:
			to.Close()
			return
		default:
			if _, err := to.Write(buffer[:n]); err != nil {
				from.Close()
				return
			}
		}
	}
}

// lose loses all connections there are, for good. Those that come are as good as
// ways says: 0 is good.
func (p *proxy) lose(lost, coming direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.deaf = coming, false
	for _, c := range p.pairs {
		c.mu.Lock()
		c.cut |= lost
		c.mu.Unlock()
	}
}

// refuse ends all connections there are, and those that come.
func (p *proxy) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = true
	for _, c := range p.pairs {
		c.client.Close()
		c.server.Close()
	}
}

// through returns the URL of a database by way of a proxy.
func through(t testing.TB, database string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, u.Host)
	u.Host = p.listener.Addr().String()
	return p, u.String()
}
