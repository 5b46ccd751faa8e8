package main

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/imclient/openim"
	"syncer/imclient/tencent"
	"syncer/internal/config"
)

// providers is the table of providers. Their settings are in internal/config/provider.go.
var providers = map[imclient.Provider]struct {
	// client returns the client of an app. gate returns the quota gate of an API.
	client func(c config.App, log zerolog.Logger, http imclient.HTTPConfig, gate gates) (apiClient, error)
	// meaning returns what the code of a user's failure means.
	meaning func(code string) (imclient.Meaning, bool)
	// checkUserID returns why an id is not sent, "" if it is.
	checkUserID func(id string) (fault string)
	// readHook returns the reader of an app's hooks. hookAnswer is the answer to those that
	// it accepts.
	readHook   func(c config.App) func(imclient.HookRequest) ([]imclient.Hook, error)
	hookAnswer string
	// hookSetup returns how the provider is made to send hooks to an app's address.
	hookSetup func(c config.App, url string) []string
}{
	imclient.ProviderTencent: {tencentClient, tencent.Meaning, tencent.CheckUserID, tencentHooks, tencent.HookAnswer, tencentHookSetup},
	imclient.ProviderOpenIM:  {openIMClient, openim.Meaning, openim.CheckUserID, openIMHooks, openim.HookAnswer, openIMHookSetup},
}

// gates returns the quota gate of the API of a kind, with a rate in calls a second.
type gates func(kind imclient.Kind, rate int) *imclient.Gate

// apiClient is what the commands need of a provider's client.
type apiClient interface {
	QueryPresence(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error)
	MaxPresenceBatch() int
	CheckAccounts(ctx context.Context, ids []string) (imclient.Answer[imclient.AccountStatus], error)
	MaxAccountsBatch() int
	Ping(ctx context.Context) error
	Close()
}

// newClient returns the client of an app. It sets Proxy, Timeout and CAs of http.
func newClient(c config.App, log zerolog.Logger, http imclient.HTTPConfig, gate gates) (apiClient, error) {
	connection := c.Connection()
	cas, err := readCAs(connection.CAFile)
	if err != nil {
		return nil, err
	}
	http.Proxy, http.Timeout, http.CAs = c.Proxy.Reveal(), connection.Timeout, cas
	return providers[c.Provider].client(c, log, http, gate)
}

// readCAs reads a certificate file. It returns nil, the system's authorities, for "".
func readCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	cas, err := imclient.ReadCAs(file)
	if err != nil {
		return nil, fmt.Errorf("read ca_file: %w", err)
	}
	return cas, nil
}

func tencentClient(c config.App, log zerolog.Logger, http imclient.HTTPConfig, gate gates) (apiClient, error) {
	t := c.Tencent
	baseURL := t.BaseURL
	if baseURL == "" {
		baseURL, _ = tencent.BaseURL(t.Region)
	}
	return tencent.New(tencent.Config{
		SDKAppID: uint32(t.SDKAppID), Identifier: t.Identifier, SecretKey: t.SecretKey.Reveal(),
		BaseURL: baseURL, PresenceAPI: t.PresenceAPI, Detail: t.Detail, Log: log, HTTPConfig: http,
		PresenceGate: gate(imclient.KindPresence, t.PresenceRate), AccountsGate: gate(imclient.KindAccounts, t.AccountsRate),
	})
}

func openIMClient(c config.App, log zerolog.Logger, http imclient.HTTPConfig, gate gates) (apiClient, error) {
	o := c.OpenIM
	return openim.New(openim.Config{
		BaseURL: o.BaseURL, AdminUserID: o.AdminUserID, Secret: o.Secret.Reveal(),
		Log: log, HTTPConfig: http,
		PresenceGate: gate(imclient.KindPresence, o.PresenceRate), AccountsGate: gate(imclient.KindAccounts, o.AccountsRate),
	})
}
