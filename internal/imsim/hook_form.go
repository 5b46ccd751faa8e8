package imsim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// HookClientIP is the address of every client in Tencent's hooks, personal data that a
// receiver must not keep.
const HookClientIP = "203.0.113.7"

// hookPlatforms are the values of OptPlatform in Tencent's hooks, where iOS is in
// capitals. Source: "Status Change Webhook".
var hookPlatforms = [numPlatforms]string{
	IOS: "IOS", IPad: "iPad", Android: "Android", AndroidPad: "Android", Web: "Web", MiniWeb: "Web",
	Windows: "Windows", MacOS: "Mac", Linux: "Linux", Harmony: "Unknown",
}

// changed appends a hook for each device that connects or is disconnected, as Tencent
// sends them. A device that was only pushed to before it vanished sends none.
func (t *tencent) changed(hooks []hook, h hook, was, is reach) []hook {
	for p := range numPlatforms {
		if was[p].connected() != is[p].connected() {
			h.platform, h.was, h.is = p, was[p], is[p]
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// request returns a callback State.StateChange. Source: "Status Change Webhook", and
// "Webhook Overview" for the signature.
func (t *tencent) request(h hook, now time.Time) (address string, body []byte) {
	action, reason := "Login", "Register"
	mobile := h.platform == IOS || h.platform == IPad || h.platform == Android || h.platform == AndroidPad
	switch {
	case h.is.connected():
	case mobile && h.is == 0:
		action, reason = "Logout", "Unregister"
	default:
		action, reason = "Disconnect", "LinkClose"
	}
	q := url.Values{
		"SdkAppid": {strconv.FormatUint(t.config.SDKAppID, 10)}, "CallbackCommand": {"State.StateChange"}, "contenttype": {"json"},
		"ClientIP": {HookClientIP}, "OptPlatform": {hookPlatforms[h.platform]},
	}
	if token := t.config.HookToken; token != "" {
		at := strconv.FormatInt(now.Unix(), 10)
		if h.forged {
			token = "guessed"
		}
		sum := sha256.Sum256([]byte(token + at))
		q.Set("RequestTime", at)
		q.Set("Sign", hex.EncodeToString(sum[:]))
	}
	body = fmt.Appendf(nil, `{"CallbackCommand":"State.StateChange","EventTime":%d,"Info":{"Action":%q,"To_Account":`, h.at.UnixMilli(), action)
	body = appendJSONString(body, h.userID)
	return t.config.HookURL + "?" + q.Encode(), fmt.Appendf(body, `,"Reason":%q}}`, reason)
}

// changed appends what a gateway of OpenIM sends: an online hook for every platform that
// is connected, whether or not it was before, and an offline hook for every one that no
// longer is. Source: requests of a server of its main branch.
func (o *openIM) changed(hooks []hook, h hook, was, is reach) []hook {
	connected := func(r reach) (c [numPlatforms]bool) {
		for p := range r {
			c[p] = r[p].connected()
		}
		return c
	}
	if connected(was) == connected(is) {
		return hooks // only foreground and background, or push, which it does not know
	}
	for p := range numPlatforms {
		if h.platform, h.was, h.is = p, was[p], is[p]; is[p].connected() {
			hooks = append(hooks, h)
		}
	}
	for p := range numPlatforms {
		if h.platform, h.was, h.is = p, was[p], is[p]; was[p].connected() && !is[p].connected() {
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// request returns a callback in the form of v3.8, or with HooksBefore35 in that of v3.0
// to v3.4. seq is when the request is made.
func (o *openIM) request(h hook, now time.Time) (address string, body []byte) {
	command := "callbackAfterUserOfflineCommand"
	if h.is.connected() {
		command = "callbackAfterUserOnlineCommand"
	}
	address = o.config.HookURL
	if h.forged {
		address = address[:strings.LastIndexByte(address, '/')+1] + "guessed"
	}
	if o.config.HooksBefore35 {
		command = strings.Replace(command, "After", "", 1)
		address += "?command=" + command
	} else {
		address += "/" + command
	}
	p := openIMPlatforms[h.platform]
	body = fmt.Appendf(nil, `{"callbackCommand":%q,"operationID":"p_%d_%d","platformID":%d,"platform":%q,"userID":`,
		command, o.server.started.UnixMilli()%100_000, h.operation, p.id, p.name)
	body = appendJSONString(body, h.userID)
	body = fmt.Appendf(body, `,"seq":%d`, now.UnixMilli())
	if h.is.connected() {
		body = fmt.Appendf(body, `,"isAppBackground":%t`, h.is == Background)
	}
	return address, append(body, `,"connID":""}`+"\n"...)
}
