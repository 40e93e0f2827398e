package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// post makes a call to a plugin as dvdcli 0.2 does: with a body that has no ID.
func post(t *testing.T, socket, method, body string) string {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Post("http://plugin/VolumeDriver."+method, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", method, res.StatusCode, answer, err)
	}
	return string(answer)
}
