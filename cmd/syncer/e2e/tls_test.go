package e2e

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOwnCA: a backend whose certificate is of an unknown CA is asked nothing,
// with advice, until ca_file names the CA.
func TestOwnCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 300, config: noJobs})
	behind, err := url.Parse(w.simURL)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(behind))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	w.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	w.write("tls.toml", strings.ReplaceAll(w.read("config.toml"), w.simURL, server.URL))
	env := []string{"SYNCER_CONFIG=tls.toml"}
	w.run(exitDone, append(env, "migrate", "up")...)
	const advice = "put that CA's certificate into a file and name it with ca_file"
	stdout, _ := w.run(exitFailed, append(env, "config", "check", "--connect")...)
	wantText(t, stdout, "FAILED  app main: tencent API", "FAILED  app chat: openim API", "unknown authority", advice)
	_, stderr := w.run(exitFailed, append(env, "backfill")...)
	wantText(t, stderr, advice)
	w.wantSQL("4", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed' AND error LIKE '%ca_file%' AND users = 0`)
	env = append(env, "SYNCER_APPS_MAIN_TENCENT_CA_FILE=ca.pem", "SYNCER_APPS_CHAT_OPENIM_CA_FILE=ca.pem")
	w.run(exitDone, append(env, "config", "check", "--connect")...)
	w.run(exitDone, append(env, "backfill", "--app", "chat")...)
	w.wantSQL("300", `SELECT count(*) FROM syncer.presence_snapshot`)
}

// read reads a file of the world's folder.
func (w *world) read(name string) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}
