// Command minimal is what dvdcli is measured against: it makes the plugin calls
// that it is given, "socket path body path body ...", and nothing else.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

func main() {
	if err := calls(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func calls(socket string, args []string) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for i := 0; i+1 < len(args); i += 2 {
		res, err := client.Post("http://plugin"+args[i], "application/json", strings.NewReader(args[i+1]))
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		if err := res.Body.Close(); err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", args[i], res.Status)
		}
	}
	return nil
}
