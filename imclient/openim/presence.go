package openim

import (
	"context"

	"syncer/imclient"
)

const apiPresence = "get_users_online_status"

// maxPresenceBytes is what an answer about presence may have for each user, on
// average. A line about a connection takes about 100 bytes and its token, which
// has 200 to 600, by the length of the user's id: so that is six and more
// connections of every user. (A server's answer of so many bytes is beyond gRPC's
// limit, too; see maxBatch.)
const maxPresenceBytes = 4 << 10

// MaxPresenceBatch is the most ids QueryPresence takes: Config.PresenceBatch.
func (c *Client) MaxPresenceBatch() int { return c.presenceBatch }

// QueryPresence asks for the login state and the devices of at most
// MaxPresenceBatch users ("Get Specified User Online Status"). The ids must be
// distinct; that is the caller's part.
//
// Every id comes back once, observed or rejected, in the order given. States
// are online and offline; a user whom the server does not know looks offline,
// only CheckAccounts tells. A user on several gateways may come with the devices
// of one only, not always the same.
//
// The server also reports users as offline, with a success code, when it cannot
// reach the gateway that holds their connections; the caller must guard against
// that. An error is the context's or an *imclient.Error about the whole batch.
func (c *Client) QueryPresence(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	if len(ids) > c.presenceBatch {
		return imclient.Answer[imclient.Presence]{}, imclient.TooMany(imclient.ProviderOpenIM, apiPresence, len(ids), c.presenceBatch)
	}
	b := newBatch[imclient.Presence](ids)
	return b.Settle(ctx, c.now, func(ctx context.Context, ids []string) error {
		return c.askPresence(ctx, ids, b)
	})
}

// askPresence makes one call and notes its answer.
func (c *Client) askPresence(ctx context.Context, ids []string, b *imclient.Batch[imclient.Presence]) error {
	reply := presenceReply{Users: make([]presenceUser, 0, len(ids))}
	o := outgoing{api: apiPresence, path: "/user/get_users_online_status", gate: c.presenceGate, users: len(ids), bytesPerUser: maxPresenceBytes}
	r, err := c.call(ctx, o, presenceRequest{UserIDs: ids}, &reply, &b.Calls)
	if err != nil {
		return err
	}
	b.Dated(r)
	c.notePresence(b, reply.Users)
	return nil
}

// notePresence notes the users of an answer.
func (c *Client) notePresence(b *imclient.Batch[imclient.Presence], users []presenceUser) {
	for _, u := range users {
		state, ok := stateOf(u.Status)
		if !ok {
			b.Doubt(u.UserID, imclient.CodeUnknownValue, c.unknownState(u.Status))
			continue
		}
		b.UnknownPlatforms += u.Unknown
		b.Observe(u.UserID, imclient.Presence{State: state, Platforms: u.Platforms})
	}
}
