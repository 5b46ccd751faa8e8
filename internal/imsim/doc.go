// Package imsim is an HTTP simulator of the two instant-messaging backends,
// Tencent Chat and OpenIM, as far as their presence and account APIs go. It
// serves the demo, tests, load and faults.
//
// It was written from the API documents and from answers of real servers, and
// shares nothing with the clients it is used to test: not a struct, not a
// constant, so that one mistake cannot hide another.
//
// A population of any size is computed from the user id and the time, not
// stored. Limits, signatures and tokens are enforced as the real backends do
// it. Faults are injected on demand, by method or over HTTP under /_sim/.
//
// Documents followed: Tencent Chat "Querying Account Online Status" (under its
// old and new name), "Querying Accounts", "RESTful API Overview", "Error
// Codes" and the TLSSigAPIv2 signature; OpenIM "Get Specified User Online
// Status" and answers captured from OpenIM 3.8.0, 3.8.3 and its main branch.
// Where they are silent, the comments say what was chosen.
package imsim
