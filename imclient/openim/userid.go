package openim

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxUserIDBytes limits an id. OpenIM documents no limit, but reports everyone offline,
// with a success code, if an answer exceeds gRPC's message limit.
const maxUserIDBytes = 256

// CheckUserID returns why an id must not be sent, "" if it can be. OpenIM answers for any
// id as for an offline user, so only ids are refused whose answer would be about another
// one: an empty id is answered like a user, invalid UTF-8 changes on the way, NUL cannot
// be stored. Other characters are not checked: the rules of registration have changed
// over time.
func CheckUserID(id string) (fault string) {
	switch {
	case id == "":
		return "the user id is empty"
	case len(id) > maxUserIDBytes:
		return fmt.Sprintf("the user id has %d bytes, at most %d are allowed", len(id), maxUserIDBytes)
	case !utf8.ValidString(id):
		return "the user id is not valid UTF-8"
	case strings.IndexByte(id, 0) >= 0:
		return "the user id holds a NUL byte"
	}
	return ""
}
