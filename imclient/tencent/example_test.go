package tencent_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"syncer/imclient/tencent"
	"syncer/internal/imsim"
)

// population has alice, who is online on her phone, and imported accounts that begin with a
// letter up to "m".
type population struct{}

func (population) AppendDevices(devices []imsim.Device, userID string, _ time.Time) []imsim.Device {
	if userID == "alice" {
		devices = append(devices, imsim.Device{Platform: imsim.IOS, Mode: imsim.Online})
	}
	return devices
}

func (population) Imported(userID string, _ time.Time) bool { return userID < "n" }

// newClient returns a client of a simulator, which close stops. For a real app, BaseURL is
// tencent.BaseURL of its region.
func newClient() (client *tencent.Client, close func()) {
	sim, err := imsim.Start(imsim.Config{
		Tencent:    &imsim.Tencent{SDKAppID: 1400000000, Admins: []string{"administrator"}, SecretKey: "key"},
		Population: population{},
	}, "127.0.0.1")
	if err != nil {
		log.Fatal(err)
	}
	client, err = tencent.New(tencent.Config{
		SDKAppID: 1400000000, Identifier: "administrator", SecretKey: "key", BaseURL: sim.URL, Detail: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	return client, func() {
		client.Close()
		if err := sim.Close(); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleClient_QueryPresence() {
	client, close := newClient()
	defer close()
	answer, err := client.QueryPresence(context.Background(), []string{"alice", "bob", "zoe"})
	if err != nil {
		log.Fatal(err)
	}
	for _, user := range answer.Observed {
		fmt.Println(user.UserID, user.Value.State, user.Value.Platforms)
	}
	for _, user := range answer.Rejected {
		fmt.Println(user.UserID, user.Code, user.Text)
	}
	// Output:
	// alice online {"ios":"online"}
	// bob offline {}
	// zoe 70107 the provider does not know this user; it was never imported
}

func ExampleClient_CheckAccounts() {
	client, close := newClient()
	defer close()
	answer, err := client.CheckAccounts(context.Background(), []string{"alice", "zoe"})
	if err != nil {
		log.Fatal(err)
	}
	for _, user := range answer.Observed {
		fmt.Println(user.UserID, user.Value)
	}
	// Output:
	// alice imported
	// zoe not_imported
}
