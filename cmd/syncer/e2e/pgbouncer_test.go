//go:build pooler

package e2e

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// bouncer is a PgBouncer in transaction mode before the world's database.
type bouncer struct {
	world *world
	dir   string
	url   string // of the database, through it
	as    *syscall.Credential
	cmd   *exec.Cmd
	gone  chan struct{}
	said  buffer
}

// poolSize is how many sessions PgBouncer has: fewer than one process has
// connections to it.
const poolSize = 4

// bounce starts a PgBouncer; settings are more lines of its configuration.
func (w *world) bounce(settings string) *bouncer {
	w.t.Helper()
	b := &bouncer{world: w}
	var err error
	if b.dir, err = os.MkdirTemp("", "syncer-pgbouncer-"); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(b.dir) })
	direct, err := url.Parse(w.dbURL)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	password, _ := direct.User.Password()
	config := filepath.Join(b.dir, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%s user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
max_client_conn = 200
%s
`, direct.Hostname(), direct.Port(), direct.User.Username(), password, port, poolSize, settings)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if os.Geteuid() == 0 { // as whom it refuses to run
		b.as = nobody(w.t)
		for _, path := range []string{b.dir, config} {
			if err := os.Chown(path, int(b.as.Uid), int(b.as.Gid)); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	through := *direct
	through.Host = net.JoinHostPort("127.0.0.1", port)
	b.url = through.String()
	b.start()
	w.t.Cleanup(b.stop)
	return b
}

func nobody(t testing.TB) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (b *bouncer) start() {
	b.world.t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // is not in everybody's PATH
	}
	b.cmd = exec.Command(program, "pgbouncer.ini")
	b.cmd.Dir, b.cmd.Stdout, b.cmd.Stderr = b.dir, &b.said, &b.said
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.as}
	if err := b.cmd.Start(); err != nil {
		b.world.t.Fatal(err)
	}
	b.gone = make(chan struct{})
	go func() {
		_ = b.cmd.Wait()
		close(b.gone)
	}()
	b.world.eventually("PgBouncer accepts connections", func() bool {
		select {
		case <-b.gone:
			b.world.t.Fatalf("PgBouncer does not run:\n%s", b.said.String())
		default:
		}
		conn, err := pgx.Connect(b.world.ctx, b.url)
		if err == nil {
			err = conn.Close(b.world.ctx)
		}
		return err == nil
	})
}

// stop ends it at once, with all connections.
func (b *bouncer) stop() {
	_ = b.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
	<-b.gone
}

// pooled is a fleet that knows the database through a PgBouncer alone, its users
// table too.
func pooled(t *testing.T, o fleetOptions) (*fleet, *bouncer) {
	t.Helper()
	f := newFleet(t, o)
	b := f.bounce("")
	f.write("database_url", b.url)
	config, err := os.ReadFile(filepath.Join(f.dir, "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	f.write("config.toml", strings.Replace(string(config), "[database]", "[database]\npoll_only = true", 1))
	return f, b
}
