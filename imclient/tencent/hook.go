package tencent

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"syncer/imclient"
)

// HookAnswer is the answer to every hook that is not refused. For callbacks before an
// event, such as a message, it means: go on.
const HookAnswer = `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}`

// stateChange is the callback about login states. An app has one URL for all callbacks.
const stateChange = "State.StateChange"

// hookFreshness is how far a hook's RequestTime may be from now. Source: "Webhook
// Overview": a request older than a minute is to be refused.
const hookFreshness = time.Minute

// Hooks reads the hooks of one app. Sources: "Webhook Overview", "Status Change Webhook".
type Hooks struct {
	SDKAppID uint32
	// Token is the token of the console's callback authentication. If "", all hooks are
	// refused.
	Token string
}

// Read returns the event of a hook, or none if it is not about a login state. An error
// wraps imclient.ErrHookPath, ErrHookRefused or ErrHookMalformed.
func (h Hooks) Read(r imclient.HookRequest) ([]imclient.Hook, error) {
	if r.Path != "" {
		return nil, imclient.ErrHookPath
	}
	if err := h.authenticate(r); err != nil {
		return nil, err
	}
	if r.Query.Get("CallbackCommand") != stateChange {
		return nil, nil // the body is not read: it may be any callback's
	}
	var event hookEvent
	if !event.read(r) {
		return nil, fmt.Errorf("%w: the body is no JSON object", imclient.ErrHookMalformed)
	}
	return event.hooks(r.Query.Get("OptPlatform")), nil
}

// authenticate returns an error if the request is not signed with the token, is too old
// or is another app's.
func (h Hooks) authenticate(r imclient.HookRequest) error {
	refused := func(why string) error { return fmt.Errorf("%w: %s", imclient.ErrHookRefused, why) }
	sent := r.Query.Get("RequestTime")
	switch seconds, err := strconv.ParseInt(sent, 10, 64); {
	case h.Token == "":
		return refused("the app has no hook_token_file")
	case r.Query.Get("Sign") == "":
		return refused("it is not signed; switch the callback's authentication on in the console")
	case !h.signed(sent, r.Query.Get("Sign")):
		return refused("its signature is wrong; compare hook_token_file with the console's token")
	case err != nil || r.Now.Sub(time.Unix(seconds, 0)).Abs() > hookFreshness:
		return refused("its RequestTime is more than a minute away from the database's clock")
	case r.Query.Get("SdkAppid") != strconv.FormatUint(uint64(h.SDKAppID), 10):
		return refused("it is signed, but its SdkAppid is not this app's")
	}
	return nil
}

// signed reports whether sign is the signature of a RequestTime. The comparison takes the
// same time for every signature of the right length.
func (h Hooks) signed(sent, sign string) bool {
	sum := sha256.Sum256([]byte(h.Token + sent))
	return subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(sign)) == 1
}

// hookEvent is the body of a hook. Its CustomStatus and KickedDevice say nothing about
// whom to ask.
type hookEvent struct {
	EventTime int64  // milliseconds
	Action    string // Info.Action
	Account   string // Info.To_Account
}

func (e *hookEvent) read(r imclient.HookRequest) (whole bool) {
	d := imclient.NewDecoder(r.Body, imclient.MaxHookBody)
	defer d.Free()
	return d.Whole(func(name []byte) {
		switch string(name) {
		case "EventTime":
			e.EventTime = d.Int()
		case "Info":
			d.Object(func(name []byte) {
				switch string(name) {
				case "Action":
					e.Action = d.Word()
				case "To_Account":
					e.Account = d.UserID(keptID)
				}
			})
		}
	})
}

// hooks returns the event as a list: empty if it changes no login state, or names no user
// that the API could be asked about.
func (e *hookEvent) hooks(optPlatform string) []imclient.Hook {
	if CheckUserID(e.Account) != "" {
		return nil
	}
	h := imclient.Hook{UserID: e.Account, ToldAt: imclient.HookTime(e.EventTime)}
	h.Platform, _ = platformOf(optPlatform)
	switch e.Action {
	case "Login": // also at each reconnect
		h.State = imclient.StateOnline
	case "Logout":
		h.State, h.Logout = imclient.StateOffline, true
	case "Disconnect":
		h.State, h.Logout = disconnected(h.Platform), true
	case "CustomStatusChange":
		return nil
	}
	return []imclient.Hook{h} // of an unknown action too: something happened to the user
}

// disconnected returns the state of a device without a connection: a mobile one stays
// reachable by push.
func disconnected(p imclient.Platform) imclient.State {
	switch p {
	case imclient.PlatformIOS, imclient.PlatformIPad, imclient.PlatformAndroid, imclient.PlatformAndroidPad:
		return imclient.StatePushOnline
	default:
		return imclient.StateOffline
	}
}
