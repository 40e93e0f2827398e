package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// maxProblem bounds what is read of an answer other than success.
const maxProblem = 64 << 10

// Backup copies the state of the framework that leads to w, in the form that
// dvdi-framework restore reads; only its end tells whether it is whole.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	const path = "/v2/backup"
	resp, err := c.send(ctx, http.MethodGet, path, nil, "application/x-ndjson, application/json;q=0.5")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
		if err != nil {
			return &UnreachableError{URL: c.base, Err: err}
		}
		return problem(http.MethodGet, path, resp.StatusCode, data)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("read the backup from %s: %w", c.base, err)
	}
	return nil
}
