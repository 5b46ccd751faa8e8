package openim

import (
	"context"

	"syncer/imclient"
)

const apiAccountCheck = "account_check"

// MaxAccountsBatch returns the largest number of ids that CheckAccounts takes,
// Config.AccountsBatch.
func (c *Client) MaxAccountsBatch() int { return c.accounts.MaxUsers }

// CheckAccounts queries which of at most MaxAccountsBatch users are registered, which is
// StatusImported here. The caller must pass distinct ids: the server refuses a batch in
// which one is repeated. Results and errors are otherwise those of QueryPresence. The
// server answers from a cache that knows a new registration at once. Source: OpenIM's user
// module and captured answers.
func (c *Client) CheckAccounts(ctx context.Context, ids []string) (imclient.Answer[imclient.AccountStatus], error) {
	return imclient.Ask(ctx, c.exchange, c.accounts, ids, CheckUserID, c.askAccounts)
}

// askAccounts makes one call and adds its answer to b.
func (c *Client) askAccounts(ctx context.Context, call imclient.Call, ids []string, b *imclient.Batch[imclient.AccountStatus]) error {
	reply := accountsReply{Results: make([]accountResult, 0, len(ids))}
	r, err := c.exchange.Do(ctx, call, accountsRequest{UserIDs: ids}, &reply)
	if err != nil {
		return err
	}
	b.Dated(r)
	for _, result := range reply.Results {
		switch result.Status {
		case "1", "registered":
			b.Observe(result.UserID, imclient.StatusImported)
		case "0", "unregistered":
			b.Observe(result.UserID, imclient.StatusNotImported)
		default:
			b.Doubt(result.UserID, imclient.CodeUnknownValue, "the answer has no known registration status: "+c.exchange.Quote(result.Status))
		}
	}
	return nil
}
