// Package imclient holds what every provider's client shares: the values that
// are observed (presence, account import status), the classes of failure, the
// one way in which HTTP calls are made, how the answers about one batch of users
// are put together, and the gate that keeps all instances together under a
// provider's call limit.
//
// It knows no provider's field names and imports nothing of this project;
// those live in imclient/tencent and imclient/openim.
package imclient
