// Command printversion prints the version, for a test.
package main

import (
	"fmt"

	"syncer/internal/build"
)

func main() { fmt.Println(build.Read()) }
