package tencent

import "fmt"

// maxUserIDBytes is the longest UserID that Tencent Chat accepts, in bytes. Source: "Use
// Limits".
const maxUserIDBytes = 32

// notFound is what Tencent Chat returns in place of an account that it cannot resolve.
const notFound = "@TLS#NOT_FOUND"

// CheckUserID returns why Tencent Chat cannot know an id, "" if it can. One such id may
// fail the whole batch that it is sent in. The rule is the widest documented one (error
// 7003): 1 to 32 bytes of printable ASCII.
func CheckUserID(id string) (fault string) {
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
