// first reads one key with a new rueidis client and exits: what a short process pays.
// usage: first PORT KEY
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/redis/rueidis"
)

func get(port, key string) error {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"127.0.0.1:" + port},
	})
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Do(context.Background(), client.B().Get().Key(key).Build()).Error()
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: first PORT KEY")
		os.Exit(2)
	}
	if err := get(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
