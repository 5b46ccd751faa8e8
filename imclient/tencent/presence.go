package tencent

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"syncer/imclient"
)

// The two names of the presence API.
const (
	apiQueryOnlineStatus = "query_online_status"
	apiQueryState        = "querystate"
)

// maxPresenceBatch is the most users one call may ask about; one more is
// answered by 90011. Source: "Querying Account Online Status".
const maxPresenceBatch = 500

// MaxPresenceBatch is the most ids QueryPresence takes: 500.
func (c *Client) MaxPresenceBatch() int { return maxPresenceBatch }

// QueryPresence asks for the login state of at most MaxPresenceBatch users, and
// with Config.Detail for their devices ("Querying Account Online Status", 200
// calls a second). The ids must be distinct; that is the caller's part.
//
// Every id comes back once, observed or rejected, in the order given. Ids that
// Tencent Chat cannot know are rejected unsent; those that the answer leaves
// out, gives no known state, or marks as failing for the moment are asked about
// once more. A user whom the provider does not know is rejected (70107).
//
// An error is the context's or an *imclient.Error about the whole batch. When
// all users of a batch of several are unknown, the provider fails the call as a
// whole; without a list of the users that is ClassBadBatch: halve and ask again.
func (c *Client) QueryPresence(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	if len(ids) > maxPresenceBatch {
		return imclient.Answer[imclient.Presence]{}, imclient.TooMany(imclient.ProviderTencent, c.presence.name, len(ids), maxPresenceBatch)
	}
	b := newBatch[imclient.Presence](ids)
	return b.Settle(ctx, c.now, func(ctx context.Context, ids []string) error {
		return c.askPresence(ctx, ids, b)
	})
}

// replies are those that are not in use.
var replies = sync.Pool{New: func() any { return new(presenceReply) }}

// askPresence makes one call and notes its answer.
func (c *Client) askPresence(ctx context.Context, ids []string, b *imclient.Batch[imclient.Presence]) error {
	request := presenceRequest{Accounts: ids}
	if c.detail {
		request.NeedDetail = 1
	}
	reply := replies.Get().(*presenceReply)
	defer replies.Put(reply)
	r, err := c.call(ctx, outgoing{endpoint: c.presence, users: len(ids), sent: &b.Calls}, request, reply)
	if err != nil && !reply.explains(err, len(ids)) {
		return err
	}
	b.Dated(r)
	differ := 0
	for _, result := range reply.Results {
		if result.Account == notFound {
			continue // whoever it stands for is missing
		}
		if result.State != "" && result.Status != "" && result.State != result.Status {
			differ++
		}
		state, ok := result.state()
		if !ok {
			b.Doubt(result.Account, imclient.CodeUnknownValue, "the answer gives no state that we know: "+strconv.Quote(imclient.CleanText(result.word(), c.secretKey)))
			continue
		}
		b.UnknownPlatforms += result.Unknown
		b.Observe(result.Account, imclient.Presence{State: state, Platforms: result.Platforms})
	}
	if differ > 0 {
		c.log.Debug().Str("api", c.presence.name).Int("users", differ).Msg("State and Status differ; Status is taken")
	}
	for _, failure := range reply.Failed {
		if failure.Account != notFound {
			noteFault(b, failure.Account, failure.Code, "")
		}
	}
	return nil
}

// explains reports whether the list of failed accounts in a reply that failed as
// a whole says all there is to say. A call fails when every account in it does,
// which is no outage. But limits, settings and signatures are not a matter of
// users, and neither is a server that times out on every one of several.
func (r *presenceReply) explains(err error, asked int) bool {
	e, ok := errors.AsType[*imclient.Error](err)
	if !ok || len(r.Failed) == 0 {
		return false
	}
	switch e.Class {
	case imclient.ClassPerUser, imclient.ClassBadBatch:
		return true
	case imclient.ClassTransient:
		for _, f := range r.Failed {
			if code, err := strconv.Atoi(f.Code); err == nil && meaningOf(code).class == imclient.ClassPerUser {
				return true
			}
		}
		return asked == 1
	default:
		return false
	}
}

// noteFault notes a code that an answer carries for one user.
func noteFault[V comparable](b *imclient.Batch[V], id, code, info string) {
	n, err := strconv.Atoi(code)
	if err != nil {
		b.Doubt(id, imclient.CodeUnknownValue, "the answer marks this user as failed, without a code")
		return
	}
	text, again := userFault(n, info)
	if again {
		b.Doubt(id, code, text)
	} else {
		b.Reject(id, code, text)
	}
}

// word is the state as written. Status is the documented name of today and wins.
func (r presenceResult) word() string {
	if r.Status != "" {
		return r.Status
	}
	return r.State
}

// state gives the state, ok false when there is none that we know: that is
// never taken for offline.
func (r presenceResult) state() (s imclient.State, ok bool) {
	switch r.word() {
	case "Online":
		return imclient.StateOnline, true
	case "PushOnline":
		return imclient.StatePushOnline, true
	case "Offline":
		return imclient.StateOffline, true
	default:
		return imclient.StateUnknown, false
	}
}
