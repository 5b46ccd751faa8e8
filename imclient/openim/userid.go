package openim

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"syncer/imclient"
)

// maxUserIDBytes bounds an id. OpenIM documents no limit, but an answer above
// gRPC's message limit comes back as "everybody offline" with a success code,
// so nothing may make a request grow without bound.
const maxUserIDBytes = 256

// checkUserID says what makes id unfit to be sent, "" when nothing does. OpenIM
// answers about anything as about an offline user, so only what would make an
// answer be about something else is refused: an empty id is answered like a
// user, invalid UTF-8 would be changed on the way, NUL cannot be stored. The
// characters are not checked: registration has known several rules over time.
func checkUserID(id string) string {
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

// newBatch makes a batch in which ids that must not be sent are rejected.
func newBatch[V comparable](ids []string) *imclient.Batch[V] {
	b := imclient.NewBatch[V](ids)
	for _, id := range ids {
		if fault := checkUserID(id); fault != "" {
			b.Reject(id, imclient.CodeInvalidID, fault)
		}
	}
	return b
}
