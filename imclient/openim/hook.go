package openim

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"

	"syncer/imclient"
)

// HookAnswer is the answer to every hook that is not refused. OpenIM logs an error if an
// answer is not JSON, and ignores the rest.
const HookAnswer = `{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}`

// Hooks reads the hooks of one server. OpenIM does not sign its requests, but it appends
// the command to the configured URL, so that a secret can be the last part of that:
// secret/command since v3.5, secret?command=… before. Source: pkg/callbackstruct and
// pkg/common/webhook of OpenIM.
type Hooks struct {
	// Secret is the last part of the URL's path. If "", all hooks are refused.
	Secret string
}

// hookCommands are the commands about connections: until v3.6, and since v3.7. Others, such
// as callbackAfterUserRegisterCommand, are about users that the next sweep finds.
var hookCommands = map[string]imclient.State{
	"callbackUserOnlineCommand":       imclient.StateOnline,
	"callbackUserOfflineCommand":      imclient.StateOffline,
	"callbackUserKickOffCommand":      imclient.StateOffline,
	"callbackAfterUserOnlineCommand":  imclient.StateOnline,
	"callbackAfterUserOfflineCommand": imclient.StateOffline,
	"callbackAfterUserKickOffCommand": imclient.StateOffline,
}

// Read returns the event of a hook, or none if it is not about a connection. An error
// wraps imclient.ErrHookPath, ErrHookRefused or ErrHookMalformed.
func (h Hooks) Read(r imclient.HookRequest) ([]imclient.Hook, error) {
	secret, command, inPath := strings.Cut(r.Path, "/")
	if !inPath {
		command = r.Query.Get("command")
	}
	switch {
	case secret == "", command == "", strings.Contains(command, "/"):
		return nil, imclient.ErrHookPath
	case h.Secret == "":
		return nil, fmt.Errorf("%w: the app has no hook_secret_file", imclient.ErrHookRefused)
	case !same(secret, h.Secret):
		return nil, fmt.Errorf("%w: the secret in its path is wrong; compare hook_secret_file with url in webhooks.yml", imclient.ErrHookRefused)
	}
	state, known := hookCommands[command]
	if !known {
		return nil, nil
	}
	var event hookEvent
	if !event.read(r) {
		return nil, fmt.Errorf("%w: the body is no JSON object", imclient.ErrHookMalformed)
	}
	return event.hooks(state), nil
}

// same compares digests, so that the time it takes reveals neither the secret nor its
// length.
func same(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// hookEvent is the body of a hook. Its connID is not read.
type hookEvent struct {
	UserID string
	Seq    int64 // Unix milliseconds of when the server made the hook
	Device device
}

func (e *hookEvent) read(r imclient.HookRequest) (whole bool) {
	d := imclient.NewDecoder(r.Body, imclient.MaxHookBody)
	defer d.Free()
	return d.Whole(func(name []byte) {
		switch string(name) {
		case "userID":
			e.UserID = d.UserID(keptID)
		case "seq":
			e.Seq = d.Int()
		case "platformID":
			e.Device.PlatformID = d.Scalar()
		case "platform":
			e.Device.Platform = d.Word()
		}
	})
}

// hooks returns the event as a list, empty if it names no user that the API could be
// asked about. An offline event means that a connection ended: the user may have others,
// even on that platform.
func (e *hookEvent) hooks(state imclient.State) []imclient.Hook {
	if CheckUserID(e.UserID) != "" {
		return nil
	}
	h := imclient.Hook{UserID: e.UserID, State: state, Logout: state == imclient.StateOffline, ToldAt: imclient.HookTime(e.Seq)}
	h.Platform, _ = platformOf(e.Device)
	return []imclient.Hook{h}
}
