package leash

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newLeash(t *testing.T) *Leash {
	t.Helper()
	l, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestProcess: it runs in the leash's folder, without what is meant for another
// syncer or Postgres, until it is stopped.
func TestProcess(t *testing.T) {
	t.Setenv("SYNCER_HTTP_LISTEN", "elsewhere")
	t.Setenv("PGHOST", "elsewhere")
	t.Setenv("BENEATH", "kept")
	l := newLeash(t)
	p, err := l.Start("output", "/bin/sh", "-c", `echo "$SYNCER_HTTP_LISTEN$PGHOST$BENEATH"; pwd; trap 'kill $!; exit 0' TERM; sleep 60 & echo ready >ready; wait`)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(l.dir, "ready")); err == nil {
			break
		}
		select {
		case <-p.Gone:
			t.Fatal(p.Died())
		default:
		}
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	<-p.Gone
	if diff := cmp.Diff("kept\n"+l.dir, p.LastOutput()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}

// TestProcess_died: a process that ends by itself says what it said.
func TestProcess_died(t *testing.T) {
	p, err := newLeash(t).Start("output", "/bin/sh", "-c", `echo "no such file" >&2; exit 3`)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Gone
	if diff := cmp.Diff("sh -c ended: exit status 3\nno such file", p.Died().Error()); diff != "" {
		t.Errorf("died (-want +got):\n%s", diff)
	}
	if err := p.Stop(); err == nil {
		t.Error("stopping a process that failed is no error")
	}
}
