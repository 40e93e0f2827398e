package devcluster

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/mesos-dvdi/dvdi/internal/freeport"
)

// Framework is a running dvdi-framework process.
type Framework struct {
	*Process
	*Client
}

// FrameworkOptions are what tests vary.
type FrameworkOptions struct {
	// Master is host:port; empty means the cluster's own.
	Master string
	// Data is the state directory's name below Config.Dir; empty: "framework".
	Data string
	// Port is the HTTP port; 0 takes a free one.
	Port int
	Args []string
	Env  []string
}

// StartFramework starts the framework and waits until it answers /ping and is
// connected to the master.
func (c *Cluster) StartFramework(ctx context.Context, o FrameworkOptions) (*Framework, error) {
	if o.Master == "" {
		o.Master = c.Mesos.Addr()
	}
	f, err := StartFramework(ctx, c.cfg, o)
	if f != nil {
		c.frameworks = append(c.frameworks, f)
	}
	return f, err
}

// StartFramework starts a framework that need not belong to a Cluster. The
// Framework is returned with an error too, where its process was started.
func StartFramework(ctx context.Context, cfg Config, o FrameworkOptions) (*Framework, error) {
	if o.Data == "" {
		o.Data = "framework"
	}
	if o.Port == 0 {
		var err error
		if o.Port, err = freeport.Port(); err != nil {
			return nil, err
		}
	}
	args := append([]string{
		"--master", o.Master, "--data-dir", filepath.Join(cfg.Dir, o.Data),
		"--http_address", "127.0.0.1", "--http_port", strconv.Itoa(o.Port),
	}, o.Args...)
	p, err := startProcess("framework", filepath.Join(cfg.Bin, "dvdi-framework"), args, o.Env, cfg.Output)
	if err != nil {
		return nil, err
	}
	f := &Framework{Process: p, Client: NewClient("http://127.0.0.1:" + strconv.Itoa(o.Port))}
	return f, f.waitConnected(ctx)
}

func (f *Framework) waitConnected(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return Poll(ctx, "the framework to connect to the master", func() (bool, string, error) {
		select {
		case <-f.Done():
			return false, "", fmt.Errorf("it ended (%v): %s", f.Err(), f.Output())
		default:
		}
		var info struct {
			FrameworkID string `json:"frameworkId"`
		}
		if err := f.Do(ctx, "GET", "/v2/info", nil, &info); err != nil {
			return false, err.Error(), nil
		}
		return info.FrameworkID != "", "no framework id yet", nil
	})
}
