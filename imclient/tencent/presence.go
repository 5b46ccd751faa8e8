package tencent

import (
	"cmp"
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

// maxPresenceBatch is the largest number of users of a call; one more is answered with
// 90011. Source: "Querying Account Online Status".
const maxPresenceBatch = 500

// MaxPresenceBatch returns the largest number of ids that QueryPresence takes, 500.
func (c *Client) MaxPresenceBatch() int { return maxPresenceBatch }

// QueryPresence queries the login state of at most MaxPresenceBatch users, and with
// Config.Detail their devices. The caller must pass distinct ids. Source: "Querying
// Account Online Status", 200 calls a second.
//
// Every id is returned once, observed or rejected, in the given order. Ids that Tencent
// Chat cannot know are rejected without a call. Ids that the answer leaves out, marks as
// failing for the moment, or reports with an unknown state are queried once more. A user
// that the provider does not know is rejected (70107).
//
// An error is the context's or an *imclient.Error about the whole batch. If all users of
// a batch of several are unknown, the provider fails the call as a whole; without a list
// of the users that is ClassBadBatch: halve the batch and query again.
func (c *Client) QueryPresence(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error) {
	return imclient.Ask(ctx, c.exchange, c.presence, ids, CheckUserID, c.askPresence)
}

// replies holds replies for reuse.
var replies = sync.Pool{New: func() any { return new(presenceReply) }}

// askPresence makes one call and adds its answer to b.
func (c *Client) askPresence(ctx context.Context, call imclient.Call, ids []string, b *imclient.Batch[imclient.Presence]) error {
	request := presenceRequest{Accounts: ids}
	if c.detail {
		request.NeedDetail = 1
	}
	reply := replies.Get().(*presenceReply)
	defer replies.Put(reply)
	r, err := c.exchange.Do(ctx, call, request, reply)
	if err != nil && !reply.explains(err, len(ids)) {
		return err
	}
	b.Dated(r)
	differ := 0
	for _, result := range reply.Results {
		if result.Account == notFound {
			continue // the user it stands for counts as left out
		}
		if result.State != "" && result.Status != "" && result.State != result.Status {
			differ++
		}
		// Status is today's documented name and wins.
		word := cmp.Or(result.Status, result.State)
		state, ok := states[word]
		if !ok {
			b.Doubt(result.Account, imclient.CodeUnknownValue, "the answer has no known state: "+c.exchange.Quote(word))
			continue
		}
		b.UnknownPlatforms += result.Unknown
		b.Observe(result.Account, imclient.Presence{State: state, Platforms: result.Platforms})
	}
	if differ > 0 {
		c.exchange.Log.Debug().Str("api", c.presence.API).Int("users", differ).Msg("State and Status differ; Status is taken")
	}
	for _, failure := range reply.Failed {
		if failure.Account != notFound {
			noteFault(b, failure.Account, failure.Code, "")
		}
	}
	return nil
}

// states holds the known states. Any other is never taken for offline.
var states = map[string]imclient.State{
	"Online": imclient.StateOnline, "PushOnline": imclient.StatePushOnline, "Offline": imclient.StateOffline,
}

// explains reports whether the list of failed accounts in a reply explains its failure
// as a whole. A call fails if every account in it does, which is not an outage. But the
// list does not explain limits, settings and signatures, nor timeouts on all of several
// users.
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
			if m, ok := Meaning(f.Code); ok && m.Class == imclient.ClassPerUser {
				return true
			}
		}
		return asked == 1
	default:
		return false
	}
}

// noteFault adds the code that an answer carries for one user to b.
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
