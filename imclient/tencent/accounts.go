package tencent

import (
	"context"
	"strconv"

	"syncer/imclient"
)

const apiAccountCheck = "account_check"

// maxAccountsBatch is the most accounts one account_check may ask about.
// Source: "Querying Accounts".
const maxAccountsBatch = 100

// MaxAccountsBatch is the most ids CheckAccounts takes: 100.
func (c *Client) MaxAccountsBatch() int { return maxAccountsBatch }

// CheckAccounts asks which of at most MaxAccountsBatch users were imported
// ("Querying Accounts", 100 calls a second). A user unknown to the provider is
// a result here, StatusNotImported, not a failure. The ids must be distinct.
// What comes back, and the errors, are as for QueryPresence.
func (c *Client) CheckAccounts(ctx context.Context, ids []string) (imclient.Answer[imclient.AccountStatus], error) {
	if len(ids) > maxAccountsBatch {
		return imclient.Answer[imclient.AccountStatus]{}, imclient.TooMany(imclient.ProviderTencent, apiAccountCheck, len(ids), maxAccountsBatch)
	}
	b := newBatch[imclient.AccountStatus](ids)
	return b.Settle(ctx, c.now, func(ctx context.Context, ids []string) error {
		return c.askAccounts(ctx, ids, b)
	})
}

// askAccounts makes one call and notes its answer.
func (c *Client) askAccounts(ctx context.Context, ids []string, b *imclient.Batch[imclient.AccountStatus]) error {
	request := accountsRequest{Items: make([]accountItem, len(ids))}
	for i, id := range ids {
		request.Items[i].UserID = id
	}
	reply := accountsReply{Results: make([]accountResult, 0, len(ids))}
	r, err := c.call(ctx, outgoing{endpoint: c.accounts, users: len(ids), sent: &b.Calls}, request, &reply)
	if err != nil {
		return err
	}
	b.Dated(r)
	for _, result := range reply.Results {
		switch {
		case result.UserID == notFound:
			// Whoever it stands for is missing.
		case result.Code != "" && result.Code != "0":
			noteFault(b, result.UserID, result.Code, imclient.CleanText(result.Info, c.secretKey))
		case result.Status == "Imported":
			b.Observe(result.UserID, imclient.StatusImported)
		case result.Status == "NotImported":
			b.Observe(result.UserID, imclient.StatusNotImported)
		default:
			b.Doubt(result.UserID, imclient.CodeUnknownValue, "the answer gives no import status that we know: "+strconv.Quote(imclient.CleanText(result.Status, c.secretKey)))
		}
	}
	return nil
}
