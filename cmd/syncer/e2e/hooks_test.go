package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"syncer/internal/imsim"
)

// hooksOn makes a daemon receive the hooks of both apps.
var hooksOn = []string{
	"SYNCER_HOOKS_LISTEN=127.0.0.1:0",
	"SYNCER_APPS_MAIN_TENCENT_HOOK_TOKEN=" + hookToken,
	"SYNCER_APPS_CHAT_OPENIM_HOOK_SECRET=" + hookSecret,
}

var hooksAddress = regexp.MustCompile(`"address":"([^"]+)","time":"[^"]+","message":"receiving hooks"`)

// hooks is the address of a daemon's receiver.
func (p *process) hooks() string {
	p.world.t.Helper()
	found := hooksAddress.FindStringSubmatch(p.stderr.String())
	if found == nil {
		p.world.t.Fatalf("syncer %v does not say where it receives hooks\n%s", p.args, p.stderr.String())
	}
	return "http://" + found[1]
}

// post sends a hook, and returns status and body of the answer.
func (w *world) post(url, body string) (status int, answer string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, soon)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// tencentHook is a signed hook, made a number of seconds ago by the database's clock.
func (w *world) tencentHook(p *process, command, user string, age int) (url, body string) {
	now, err := strconv.ParseInt(w.text(`SELECT extract(epoch FROM clock_timestamp())::bigint`), 10, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	return signedHook(p.hooks(), command, user, now-int64(age))
}

func signedHook(at, command, user string, seconds int64) (address, body string) {
	sent := strconv.FormatInt(seconds, 10)
	sum := sha256.Sum256([]byte(hookToken + sent))
	q := url.Values{
		"SdkAppid": {"1400000001"}, "CallbackCommand": {command}, "contenttype": {"json"}, "ClientIP": {hookClient}, "OptPlatform": {"IOS"},
		"RequestTime": {sent}, "Sign": {hex.EncodeToString(sum[:])},
	}
	return at + "/hooks/main?" + q.Encode(), fmt.Sprintf(`{"CallbackCommand":%q,"EventTime":%d,"Info":{"Action":"Login","To_Account":%q,"Reason":"Register"}}`, command, seconds*1000, user)
}

// TestHooks: a change that a hook reports is asked about and recorded without a sweep, for
// both providers. Hooks that prove nothing have no effect but on a counter, and nothing of
// a request is in the log or a table.
func TestHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 20, config: noJobs})
	w.run(exitDone, "migrate", "up")
	w.exec(`DELETE FROM public.users WHERE id > 3`)
	for _, id := range []string{"u00001", "u00002", "u00003"} {
		w.sim.Users().Set(id)
	}
	w.run(exitDone, "backfill", "--job", "presence")
	p := w.daemon(hooksOn...)
	const openIMBody = `{"callbackCommand":"callbackAfterUserOnlineCommand","operationID":"p_1_1","platformID":1,"platform":"IOS","userID":"u00002","seq":1790000000000,"isAppBackground":false,"connID":"SIMCONN"}`
	openIM := p.hooks() + "/hooks/chat/" + hookSecret

	w.sim.Users().Set("u00001", imsim.Device{Platform: imsim.IOS, Mode: imsim.Online})
	w.sim.Users().Set("u00002", imsim.Device{Platform: imsim.IOS, Mode: imsim.Online})
	w.sim.Users().Set("u00003", imsim.Device{Platform: imsim.IOS, Mode: imsim.Online}) // without a hook
	post := func(url, body string, want int) {
		t.Helper()
		if status, answer := w.post(url, body); status != want {
			t.Errorf("answered %d %q, want %d", status, answer, want)
		}
	}
	stale, body := w.tencentHook(p, "State.StateChange", "u00003", 120)
	post(stale, body, http.StatusUnauthorized)
	post(strings.Replace(stale, "Sign=", "Sign=0", 1), body, http.StatusUnauthorized)
	post(p.hooks()+"/hooks/chat/CANARY-HOOK-SECRETS/callbackAfterUserOnlineCommand", strings.Replace(openIMBody, "u00002", "u00003", 1), http.StatusUnauthorized)
	post(p.hooks()+"/hooks/nobody", body, http.StatusNotFound)
	other, body := w.tencentHook(p, "C2C.CallbackBeforeSendMsg", "u00003", 0)
	post(other, body, http.StatusOK)
	fresh, body := w.tencentHook(p, "State.StateChange", "u00001", 0)
	post(fresh, body, http.StatusOK)
	post(openIM+"/callbackAfterUserOnlineCommand", openIMBody, http.StatusOK)
	post(openIM+"?command=callbackUserOnlineCommand", openIMBody, http.StatusOK)

	const online = `SELECT string_agg(name || ' ' || user_id, ', ' ORDER BY name) FROM syncer.presence_snapshot JOIN syncer.app USING (app_id) WHERE state = 'online'`
	w.waitSQL("chat u00002, main u00001", online)
	_, metrics := w.get(p.admin() + "/metrics")
	wantText(t, metrics, `syncer_hooks_total{app="main",result="accepted"} 1`, `syncer_hooks_total{app="main",result="refused"} 2`,
		`syncer_hooks_total{app="main",result="unknown_command"} 1`, `syncer_hooks_total{app="chat",result="accepted"} 2`, `syncer_hooks_total{app="chat",result="refused"} 1`)
	wantText(t, p.stderr.String(), "its RequestTime is more than a minute away", "the secret in its path is wrong")
	address := strings.TrimPrefix(p.hooks(), "http://")
	p.stop()
	if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		conn.Close()
		t.Error("it receives hooks after its end")
	}
	w.wantSQL("chat u00002, main u00001", online)
}

// TestHooks_port: a daemon that cannot receive hooks says so, and ends.
func TestHooks_port(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{config: noJobs})
	w.run(exitDone, "migrate", "up")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, stderr := w.run(exitFailed, append(hooksOn, "SYNCER_HOOKS_LISTEN="+l.Addr().String(), "run")...)
	wantText(t, stderr, "listen for hooks: ", "address already in use", "check [hooks] listen (")
}
