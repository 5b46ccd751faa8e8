package openim

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"syncer/imclient"
)

const apiUsersStatus = "get_users_status"

// QueryStatus asks for the same as QueryPresence, of at most MaxPresenceBatch
// distinct users, but in another way: POST /user/get_users_status
// {"userID":"<caller>","userIDs":[…]}, answered by data.statusList, a list of
// {"userID","status":0|1,"platformIDs":[1,5]|null}. Source: OpenIM's user module
// and an answer captured from its main branch.
//
// The server answers from Redis: with all platforms of a user, whatever gateway
// holds the connections, in any order, and with an error where QueryPresence
// calls users offline whose gateway is out of reach. But after the crash of a
// gateway it calls its users online for up to 30 minutes more. It does not tell
// the foreground from the background: every platform is ModeOnline.
//
// It is one call under PresenceGate, none for an empty list, which the server
// refuses. What comes back, and the errors, are as for QueryPresence; one more
// error is errors.ErrUnsupported: the server does not offer it (HTTP 404).
func (c *Client) QueryStatus(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	if len(ids) > c.presenceBatch {
		return imclient.Answer[imclient.Presence]{}, imclient.TooMany(imclient.ProviderOpenIM, apiUsersStatus, len(ids), c.presenceBatch)
	}
	b := newBatch[imclient.Presence](ids)
	answer, err := b.Settle(ctx, c.now, func(ctx context.Context, ids []string) error {
		return c.askStatus(ctx, ids, b)
	})
	if e, ok := errors.AsType[*imclient.Error](err); ok && e.HTTPStatus == http.StatusNotFound && e.API == apiUsersStatus {
		e.Err = errors.ErrUnsupported
	}
	return answer, err
}

// askStatus makes one call and notes its answer.
func (c *Client) askStatus(ctx context.Context, ids []string, b *imclient.Batch[imclient.Presence]) error {
	reply := statusReply{presenceReply{Users: make([]presenceUser, 0, len(ids))}}
	o := outgoing{api: apiUsersStatus, path: "/user/get_users_status", gate: c.presenceGate, users: len(ids), bytesPerUser: maxLineBytes}
	r, err := c.call(ctx, o, statusRequest{UserID: c.adminUserID, UserIDs: ids}, &reply, &b.Calls)
	if err != nil {
		return err
	}
	b.Dated(r)
	c.notePresence(b, reply.Users)
	return nil
}

// stateOf reads a state; ok is false when it is none that we know.
func stateOf(w string) (s imclient.State, ok bool) {
	switch w {
	case "1", "online":
		return imclient.StateOnline, true
	case "0", "offline":
		return imclient.StateOffline, true
	default:
		return imclient.StateUnknown, false
	}
}

func (c *Client) unknownState(w string) string {
	return "the answer gives no state that we know: " + strconv.Quote(imclient.CleanText(w, c.secret))
}
