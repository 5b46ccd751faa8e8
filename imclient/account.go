package imclient

import "fmt"

// AccountStatus says whether the IM backend knows a user. The zero value means
// "not known" and is never stored.
type AccountStatus uint8

// The statuses. OpenIM's "registered" is imported.
const (
	StatusUnknown AccountStatus = iota
	StatusImported
	StatusNotImported
)

// String gives the status as it is stored: imported, not_imported.
func (s AccountStatus) String() string {
	switch s {
	case StatusImported:
		return "imported"
	case StatusNotImported:
		return "not_imported"
	default:
		return "unknown"
	}
}

// ParseAccountStatus reads a status as String writes it.
func ParseAccountStatus(s string) (AccountStatus, error) {
	switch s {
	case "imported":
		return StatusImported, nil
	case "not_imported":
		return StatusNotImported, nil
	default:
		return StatusUnknown, fmt.Errorf("unknown account import status %q", s)
	}
}
