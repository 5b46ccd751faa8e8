// Package imclient has what the clients of all providers share: the observed values
// (presence, account import status), the classes of failures, the exchange that makes
// calls, the answer to a batch of users, and the gate that keeps all instances together
// below a provider's call limit.
//
// It knows no provider's field names and imports nothing of this project. Packages
// imclient/tencent and imclient/openim know a provider each; package jobs uses them all,
// and package repo stores the values and implements CallStore.
package imclient
