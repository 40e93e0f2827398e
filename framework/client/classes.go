package client

import (
	"context"
	"net/http"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// VolumeClasses lists the volume classes that apps may name.
func (c *Client) VolumeClasses(ctx context.Context) ([]app.VolumeClass, error) {
	var out struct {
		Classes []app.VolumeClass `json:"classes"`
	}
	return out.Classes, c.do(ctx, http.MethodGet, "/v2/volume-classes", nil, &out)
}
