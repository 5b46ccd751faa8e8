//go:build long

package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"syncer/internal/dev/pgcluster"
)

// network is a switch with this machine and two hosts of the test's own on it,
// all of them network namespaces. Nothing leaves it.
type network struct {
	t       *testing.T
	names   string // what the names of the namespaces begin with
	gateway string // this machine's address on it, where database and API are
	subnet  string
}

// newNetwork makes the hosts a and b. They are removed when the test ends.
func newNetwork(t *testing.T) *network {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root, with iproute2 installed")
	}
	id := strings.ToLower(rand.Text()[:6])
	// 198.18.0.0/15 is set aside for tests of networks (RFC 2544).
	third := mathrand.IntN(256)
	n := &network{
		t: t, names: "syncer-" + id + "-",
		gateway: fmt.Sprintf("198.18.%d.1", third), subnet: fmt.Sprintf("198.18.%d.0/24", third),
	}
	port := "syncer-" + id // at most 15 bytes
	t.Cleanup(func() {
		for _, name := range []string{"a", "b", "switch"} {
			_ = exec.Command("ip", "netns", "del", n.names+name).Run() // if it was made
		}
		_ = exec.Command("ip", "link", "del", port).Run() // goes with the switch, sooner or later
	})
	n.ip("netns", "add", n.names+"switch")
	n.in("switch", "link", "add", "br0", "type", "bridge")
	n.in("switch", "link", "set", "br0", "up")
	n.ip("link", "add", port, "type", "veth", "peer", "name", "here", "netns", n.names+"switch")
	n.plug("here")
	n.ip("address", "add", n.gateway+"/24", "dev", port)
	n.ip("link", "set", port, "up")
	for i, host := range []string{"a", "b"} {
		n.ip("netns", "add", n.names+host)
		n.in(host, "link", "set", "lo", "up") // for the daemon's health
		n.in("switch", "link", "add", "name", host, "type", "veth", "peer", "name", "eth0", "netns", n.names+host)
		n.plug(host)
		n.in(host, "address", "add", fmt.Sprintf("198.18.%d.%d/24", third, 2+i), "dev", "eth0")
		n.in(host, "link", "set", "eth0", "up")
		// What runs there sees this file as /etc/hosts.
		etc := filepath.Join("/etc/netns", n.names+host)
		t.Cleanup(func() {
			_ = os.RemoveAll(etc)
			_ = os.Remove("/etc/netns") // unless it is used otherwise
		})
		for _, err := range []error{os.MkdirAll(etc, 0o755), os.WriteFile(filepath.Join(etc, "hosts"), []byte(n.gateway+" localhost\n"), 0o644)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// plug connects a host to the switch. unplug cuts it off, of which neither end
// notices anything but silence.
func (n *network) plug(host string) {
	n.in("switch", "link", "set", "dev", host, "master", "br0", "up")
}

func (n *network) unplug(host string) { n.in("switch", "link", "set", "dev", host, "nomaster") }

// in configures the network of a host.
func (n *network) in(host string, args ...string) {
	n.t.Helper()
	n.ip(append([]string{"-netns", n.names + host}, args...)...)
}

func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// postgres starts a server that the hosts reach, and returns its URL for them and
// for this machine.
func (n *network) postgres() (there, here string) {
	n.t.Helper()
	dir, err := os.MkdirTemp("", "syncer-hba-") // not one of the test's, which are closed to the server's account
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	hba := filepath.Join(dir, "pg_hba.conf")
	rules := fmt.Sprintf("host all all 127.0.0.1/32 scram-sha-256\nhost all all %s scram-sha-256\n", n.subnet)
	for _, err := range []error{os.Chmod(dir, 0o755), os.WriteFile(hba, []byte(rules), 0o644)} {
		if err != nil {
			n.t.Fatal(err)
		}
	}
	cluster, err := pgcluster.Start(context.Background(), pgcluster.Options{Settings: map[string]string{
		"listen_addresses": "127.0.0.1," + n.gateway, "hba_file": hba,
	}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			n.t.Error(err)
		}
	})
	here = cluster.URL("postgres")
	return strings.Replace(here, "127.0.0.1", n.gateway, 1), here
}

// TestLongCutOff: one of two hosts is cut off amid its ranges. The other goes on
// with them. When the first one is back it works again, and what it was about to
// write and to ask does no harm.
func TestLongCutOff(t *testing.T) {
	const limit = 60
	n := newNetwork(t)
	there, here := n.postgres()
	f := newFleet(t, fleetOptions{limit: limit, rate: 40, page: 100, worldOptions: worldOptions{
		users: 4000, config: noJobs, patience: longPatience, dbURL: here, host: n.gateway,
	}})
	f.write("database_url", there)
	f.onHost = n.names + "a"
	f.grow(1)
	f.onHost = n.names + "b"
	f.grow(2)
	cutOff, other := f.processes[0], f.processes[1]
	f.backfill().wait(exitPartial)

	f.change()
	run := f.backfill()
	f.holds(cutOff)
	n.unplug("a")
	cut := time.Now()
	_, said := run.wait(exitPartial)
	t.Logf("cut off amid its ranges; the sweep ended %s later", time.Since(cut).Round(100*time.Millisecond))
	wantText(t, said+other.stderr.String(), "took over work whose worker gave no sign of life")
	// Long enough for TCP to ask more and more rarely.
	for time.Since(cut) < 40*time.Second {
		f.change()
		f.backfill().wait(exitPartial)
	}

	pages := cutOff.pages()
	f.change()
	run = f.backfill()
	f.holds(other)
	n.plug("a")
	back := time.Now()
	run.wait(exitPartial)
	for f.ctx.Err() == nil && cutOff.pages() == pages {
		f.change()
		f.backfill().wait(exitPartial)
	}
	t.Logf("cut off for %s, it wrote pages again %s after it was back", back.Sub(cut).Round(100*time.Millisecond), time.Since(back).Round(100*time.Millisecond))
	f.stop()
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status <> 'partial'`)
	f.kept(limit)
}
