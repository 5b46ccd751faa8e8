package openim_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"syncer/imclient"
	"syncer/imclient/openim"
	"syncer/internal/imsim"
)

// everyone is a population of registered users that are online on the web.
type everyone struct{}

func (everyone) AppendDevices(devices []imsim.Device, _ string, _ time.Time) []imsim.Device {
	return append(devices, imsim.Device{Platform: imsim.Web, Mode: imsim.Online})
}

func (everyone) Imported(string, time.Time) bool { return true }

func ExampleClient_QueryPresence() {
	sim, err := imsim.Start(imsim.Config{OpenIM: &imsim.OpenIM{AdminUserID: "imAdmin", Secret: "secret"}, Population: everyone{}}, "127.0.0.1")
	if err != nil {
		log.Fatal(err)
	}
	defer sim.Close()
	client, err := openim.New(openim.Config{BaseURL: sim.URL, AdminUserID: "imAdmin", Secret: "secret"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	answer, err := client.QueryPresence(context.Background(), []string{"alice", ""})
	if err != nil {
		log.Fatalf("%s: %v", imclient.ClassOf(err), err)
	}
	for _, user := range answer.Observed {
		fmt.Println(user.UserID, user.Value.State, user.Value.Platforms)
	}
	for _, user := range answer.Rejected {
		fmt.Printf("%q %s: %s\n", user.UserID, user.Code, user.Text)
	}
	// Output:
	// alice online {"web":"online"}
	// "" invalid_id: the user id is empty
}
