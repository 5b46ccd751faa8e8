package tencent

import (
	"context"

	"syncer/imclient"
)

const apiAccountCheck = "account_check"

// maxAccountsBatch is the largest number of accounts of a call. Source: "Querying
// Accounts".
const maxAccountsBatch = 100

// MaxAccountsBatch returns the largest number of ids that CheckAccounts takes, 100.
func (c *Client) MaxAccountsBatch() int { return maxAccountsBatch }

// CheckAccounts queries which of at most MaxAccountsBatch users are imported. A user
// that the provider does not know is StatusNotImported, not a failure. The caller must
// pass distinct ids. Results and errors are otherwise those of QueryPresence. Source:
// "Querying Accounts", 100 calls a second.
func (c *Client) CheckAccounts(ctx context.Context, ids []string) (imclient.Answer[imclient.AccountStatus], error) {
	return imclient.Ask(ctx, c.exchange, c.accounts, ids, CheckUserID, c.askAccounts)
}

// askAccounts makes one call and adds its answer to b.
func (c *Client) askAccounts(ctx context.Context, call imclient.Call, ids []string, b *imclient.Batch[imclient.AccountStatus]) error {
	request := accountsRequest{Items: make([]accountItem, len(ids))}
	for i, id := range ids {
		request.Items[i].UserID = id
	}
	reply := accountsReply{Results: make([]accountResult, 0, len(ids))}
	r, err := c.exchange.Do(ctx, call, request, &reply)
	if err != nil {
		return err
	}
	b.Dated(r)
	for _, result := range reply.Results {
		switch {
		case result.UserID == notFound:
			// The user it stands for counts as left out.
		case result.Code != "" && result.Code != "0":
			noteFault(b, result.UserID, result.Code, c.exchange.Clean(result.Info))
		case result.Status == "Imported":
			b.Observe(result.UserID, imclient.StatusImported)
		case result.Status == "NotImported":
			b.Observe(result.UserID, imclient.StatusNotImported)
		default:
			b.Doubt(result.UserID, imclient.CodeUnknownValue, "the answer has no known import status: "+c.exchange.Quote(result.Status))
		}
	}
	return nil
}
