// Package imsim is an HTTP simulator of the presence and account APIs of Tencent Chat
// and OpenIM. `syncer simulate` serves it; tests and the tools of internal/dev start
// it with Start and make it fail.
//
// It was written from the API documents and from answers of real servers. It shares
// no type and no constant with the clients in imclient, so that one mistake cannot
// hide another.
//
// A population of any size is computed from user id and time, not stored. Limits,
// signatures and tokens are enforced as the real providers do. Faults are injected by
// method or over HTTP under /_sim/.
//
// Documents followed: Tencent Chat "Querying Account Online Status" (under its old
// and new name), "Querying Accounts", "RESTful API Overview", "Error Codes" and the
// TLSSigAPIv2 signature; OpenIM "Get Specified User Online Status" and answers
// captured from OpenIM 3.8.0, 3.8.3 and its main branch. Where they say nothing,
// comments describe the choice.
package imsim
