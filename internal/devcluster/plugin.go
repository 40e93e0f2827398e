package devcluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Plugin is a volume plugin that runs once per node.
type Plugin struct {
	// Driver is the name under which the node's dvdcli finds it.
	Driver string
	// Program is the path of its binary; a bare name is searched on PATH.
	Program string
	// Args returns its arguments. It must listen on socket, mount below
	// mounts and keep its own files below state. store is shared by all nodes.
	Args func(node, socket, mounts, state, store string) []string
}

// ReferencePlugin is examples/volume-plugin in single-attach mode.
func ReferencePlugin(bin string) Plugin {
	return Plugin{
		Driver: Driver, Program: filepath.Join(bin, "volume-plugin"),
		Args: func(node, socket, mounts, state, store string) []string {
			return []string{"--root", store, "--mounts", mounts, "--node", node, "--single-attach", "--socket", socket}
		},
	}
}

// RclonePlugin is rclone's Docker volume plugin, which was not written here.
// program is its binary, "rclone" for the one on PATH.
func RclonePlugin(program string) Plugin {
	return Plugin{
		Driver: "rclone", Program: program,
		Args: func(node, socket, mounts, state, store string) []string {
			return []string{"serve", "docker", "--socket-addr", socket, "--base-dir", mounts,
				"--cache-dir", state, "--config", filepath.Join(state, "rclone.conf")}
		},
	}
}

func (n *Node) pluginDir() string { return filepath.Join(n.dir, "plugins") }

// startPlugin starts a volume plugin of the node and waits for its socket.
func (n *Node) startPlugin(ctx context.Context, p Plugin) error {
	mounts := filepath.Join(n.dir, "mounts", p.Driver)
	state := filepath.Join(n.dir, "plugin-state", p.Driver)
	for _, d := range []string{n.pluginDir(), mounts, state, n.c.Store()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	socket := filepath.Join(n.pluginDir(), p.Driver+".sock")
	proc, err := startProcess(fmt.Sprintf("volume plugin %s of %s", p.Driver, n.name), p.Program,
		p.Args(n.name, socket, mounts, state, n.c.Store()), nil, n.c.cfg.Output)
	if err != nil {
		return err
	}
	n.plugins[p.Driver] = proc
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return Poll(ctx, proc.name+" to listen", func() (bool, string, error) {
		select {
		case <-proc.Done():
			return false, "", fmt.Errorf("it ended (%v): %s", proc.Err(), proc.Output())
		default:
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false, err.Error(), nil
		}
		return true, "", conn.Close()
	})
}

// KillPlugin ends a plugin with SIGKILL, as a crash of it would.
func (n *Node) KillPlugin(driver string) { n.plugins[driver].Kill() }

// StartPlugin starts a plugin of the configuration again.
func (n *Node) StartPlugin(ctx context.Context, driver string) error {
	for _, p := range n.c.cfg.Plugins {
		if p.Driver == driver {
			return n.startPlugin(ctx, p)
		}
	}
	return fmt.Errorf("no plugin %q is configured", driver)
}
