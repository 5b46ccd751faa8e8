package tencent

import (
	"fmt"

	"syncer/imclient"
)

// maxUserIDBytes is the longest UserID that Tencent Chat accepts, in bytes.
// Source: "Use Limits".
const maxUserIDBytes = 32

// notFound is what Tencent Chat puts in the place of an account that it cannot
// resolve.
const notFound = "@TLS#NOT_FOUND"

// checkUserID says what makes id one that Tencent Chat cannot know, "" when
// nothing does. One such id may fail the whole batch it is sent in. The rule is
// the widest of those documented (error 7003): 1 to 32 bytes of printable ASCII.
func checkUserID(id string) string {
	if id == "" {
		return "the user id is empty"
	}
	if len(id) > maxUserIDBytes {
		return fmt.Sprintf("the user id has %d bytes, at most %d are allowed", len(id), maxUserIDBytes)
	}
	for i := range len(id) {
		if id[i] < 0x20 || id[i] > 0x7e {
			return fmt.Sprintf("the user id has the byte 0x%02x, only printable ASCII is allowed", id[i])
		}
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
