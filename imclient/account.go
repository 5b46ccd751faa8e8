package imclient

import "fmt"

// AccountStatus is whether the IM backend knows a user. The zero value is unknown and
// never stored.
type AccountStatus uint8

// The account statuses. OpenIM's "registered" is StatusImported.
const (
	StatusUnknown AccountStatus = iota
	StatusImported
	StatusNotImported
)

var statusNames = []string{"unknown", "imported", "not_imported"}

// String returns the status as it is stored: imported, not_imported.
func (s AccountStatus) String() string { return nameOf(statusNames, s) }

// ParseAccountStatus parses what String returns.
func ParseAccountStatus(name string) (AccountStatus, error) {
	s, ok := valueOf[AccountStatus](statusNames, name)
	if !ok || s == StatusUnknown {
		return StatusUnknown, fmt.Errorf("unknown account import status %q", name)
	}
	return s, nil
}
