package imclient

import "fmt"

// Provider is an instant-messaging backend that syncer can query.
type Provider string

// The providers.
const (
	ProviderTencent Provider = "tencent"
	ProviderOpenIM  Provider = "openim"
)

// HasAddress reports whether a tenant of the provider is identified by its address, which
// changes if the deployment moves.
func (p Provider) HasAddress() bool { return p == ProviderOpenIM }

// Kind is what a sweep queries.
type Kind string

// The kinds of sweeps.
const (
	KindPresence Kind = "presence"
	KindAccounts Kind = "accounts"
)

// Kinds lists all kinds in the order in which a backfill runs them.
func Kinds() []Kind { return []Kind{KindPresence, KindAccounts} }

// ParseKind parses a kind as it is written in the configuration and in the database.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case KindPresence, KindAccounts:
		return k, nil
	default:
		return "", fmt.Errorf("unknown kind %q (allowed: presence, accounts)", s)
	}
}
