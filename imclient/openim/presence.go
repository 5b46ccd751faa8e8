package openim

import (
	"context"
	"errors"
	"net/http"

	"syncer/imclient"
)

// The two presence APIs.
const (
	apiPresence    = "get_users_online_status"
	apiUsersStatus = "get_users_status"
)

// maxPresenceBytes is the largest average size of a presence answer per user: six and
// more connections, each about 100 bytes and a token of 200 to 600, depending on the
// length of the user's id. A larger answer exceeds gRPC's limit too; see maxBatch.
const maxPresenceBytes = 4 << 10

// maxLineBytes is the largest average size per user of an answer without tokens: an id of
// at most maxUserIDBytes and all platforms.
const maxLineBytes = 1 << 10

// MaxPresenceBatch returns the largest number of ids that QueryPresence and QueryStatus
// take, Config.PresenceBatch.
func (c *Client) MaxPresenceBatch() int { return c.presence.MaxUsers }

// QueryPresence queries the login state and the devices of at most MaxPresenceBatch
// users. The caller must pass distinct ids. Source: "Get Specified User Online Status".
//
// Every id is returned once, observed or rejected, in the given order. The states are
// online and offline; a user that the server does not know is offline here and can be
// recognised only with CheckAccounts. A user connected to several gateways may be
// reported with the devices of any one of them.
//
// If the server cannot reach the gateway that holds a user's connections, it reports the
// user as offline, with a success code; the caller must guard against that. An error is
// the context's or an *imclient.Error about the whole batch.
func (c *Client) QueryPresence(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	return imclient.Ask(ctx, c.exchange, c.presence, ids, CheckUserID, func(ctx context.Context, call imclient.Call, ids []string, b *imclient.Batch[imclient.Presence]) error {
		reply := &presenceReply{Users: make([]presenceUser, 0, len(ids))}
		r, err := c.exchange.Do(ctx, call, presenceRequest{UserIDs: ids}, reply)
		return c.notePresence(b, r, reply, err)
	})
}

// QueryStatus queries the same as QueryPresence from Redis: with all platforms of a user,
// whichever gateway holds the connections, and with an error where QueryPresence reports
// users of an unreachable gateway as offline. But it reports the users of a crashed
// gateway as online for up to 30 more minutes, and every platform as ModeOnline, also in
// the background. Source: OpenIM's user module (POST /user/get_users_status
// {"userID":"<caller>","userIDs":[…]}, answered with data.statusList, a list of
// {"userID","status":0|1,"platformIDs":[1,5]|null}) and an answer of its main branch.
//
// It is one call under PresenceGate, and none for an empty list, which the server
// refuses. Results and errors are those of QueryPresence, and errors.ErrUnsupported if
// the server does not have the API (HTTP 404).
func (c *Client) QueryStatus(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	answer, err := imclient.Ask(ctx, c.exchange, c.status, ids, CheckUserID, func(ctx context.Context, call imclient.Call, ids []string, b *imclient.Batch[imclient.Presence]) error {
		reply := &statusReply{presenceReply{Users: make([]presenceUser, 0, len(ids))}}
		r, err := c.exchange.Do(ctx, call, statusRequest{UserID: c.adminUserID, UserIDs: ids}, reply)
		return c.notePresence(b, r, &reply.presenceReply, err)
	})
	if e, ok := errors.AsType[*imclient.Error](err); ok && e.HTTPStatus == http.StatusNotFound && e.API == apiUsersStatus {
		e.Err = errors.ErrUnsupported
	}
	return answer, err
}

// notePresence adds the answer to a call to b. It returns err, the call's error.
func (c *Client) notePresence(b *imclient.Batch[imclient.Presence], r imclient.Reply, reply *presenceReply, err error) error {
	if err != nil {
		return err
	}
	b.Dated(r)
	for _, u := range reply.Users {
		state, ok := states[u.Status]
		if !ok {
			b.Doubt(u.UserID, imclient.CodeUnknownValue, "the answer has no known state: "+c.exchange.Quote(u.Status))
			continue
		}
		b.UnknownPlatforms += u.Unknown
		b.Observe(u.UserID, imclient.Presence{State: state, Platforms: u.Platforms})
	}
	return nil
}

// states holds the known states. Any other is never taken for offline.
var states = map[string]imclient.State{
	"1": imclient.StateOnline, "online": imclient.StateOnline,
	"0": imclient.StateOffline, "offline": imclient.StateOffline,
}
