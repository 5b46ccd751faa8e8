package openim

import (
	"context"
	"strconv"

	"syncer/imclient"
)

const apiAccountCheck = "account_check"

// maxLineBytes is what an answer of one short line about each user, with its id of
// at most maxUserIDBytes and all platforms there are, may have for each.
const maxLineBytes = 1 << 10

// MaxAccountsBatch is the most ids CheckAccounts takes: Config.AccountsBatch.
func (c *Client) MaxAccountsBatch() int { return c.accountsBatch }

// CheckAccounts asks which of at most MaxAccountsBatch users are registered,
// which is StatusImported here. The ids must be distinct: the server refuses a
// whole batch in which one is repeated. What comes back, and the errors, are as
// for QueryPresence. The server answers from a cache; a registration shows at
// once.
func (c *Client) CheckAccounts(ctx context.Context, ids []string) (imclient.Answer[imclient.AccountStatus], error) {
	if len(ids) > c.accountsBatch {
		return imclient.Answer[imclient.AccountStatus]{}, imclient.TooMany(imclient.ProviderOpenIM, apiAccountCheck, len(ids), c.accountsBatch)
	}
	b := newBatch[imclient.AccountStatus](ids)
	return b.Settle(ctx, c.now, func(ctx context.Context, ids []string) error {
		return c.askAccounts(ctx, ids, b)
	})
}

// askAccounts makes one call and notes its answer.
func (c *Client) askAccounts(ctx context.Context, ids []string, b *imclient.Batch[imclient.AccountStatus]) error {
	reply := accountsReply{Results: make([]accountResult, 0, len(ids))}
	o := outgoing{api: apiAccountCheck, path: "/user/account_check", gate: c.accountsGate, users: len(ids), bytesPerUser: maxLineBytes}
	r, err := c.call(ctx, o, accountsRequest{UserIDs: ids}, &reply, &b.Calls)
	if err != nil {
		return err
	}
	b.Dated(r)
	c.noteAccounts(b, reply.Results)
	return nil
}

// noteAccounts notes the users of an answer.
func (c *Client) noteAccounts(b *imclient.Batch[imclient.AccountStatus], results []accountResult) {
	for _, result := range results {
		switch result.Status {
		case "1", "registered":
			b.Observe(result.UserID, imclient.StatusImported)
		case "0", "unregistered":
			b.Observe(result.UserID, imclient.StatusNotImported)
		default:
			b.Doubt(result.UserID, imclient.CodeUnknownValue,
				"the answer gives no registration status that we know: "+strconv.Quote(imclient.CleanText(result.Status, c.secret)))
		}
	}
}
