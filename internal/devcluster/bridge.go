package devcluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// BridgeToken is the file with the token by which the framework knows itself to
// the nodes' bridges.
func (c *Cluster) BridgeToken() string { return filepath.Join(c.cfg.Dir, "bridge-token") }

// makeToken makes the token once.
func (c *Cluster) makeToken() error {
	token := make([]byte, 32)
	if _, err := rand.Read(token); err != nil {
		return fmt.Errorf("make the bridges' token: %w", err)
	}
	if err := os.WriteFile(c.BridgeToken(), []byte(hex.EncodeToString(token)), 0o600); err != nil {
		return fmt.Errorf("write the bridges' token: %w", err)
	}
	return nil
}

// bridgeAttribute is the agent's attribute that tells where its bridge is: all
// nodes share this host's ports.
func (n *Node) bridgeAttribute() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.bridgePort))
}

// StartBridge starts the node's isolator-bridge and waits until it serves. The
// cluster must have been configured with Bridges.
func (n *Node) StartBridge(ctx context.Context) error {
	args := []string{"serve", "--interval=200ms", "--leak-grace=2s", "--policy=/dev/null", "--socket=none", "--log-format=console",
		"--facts-token=" + n.c.BridgeToken(), "--facts-address=" + n.bridgeAttribute(),
		"--agent-url=" + n.Agent.URL(), "--agent-work-dir=" + n.Agent.Dir(), "--agent-hostname=" + n.name,
		"--checkpoint-dir=" + n.Agent.DockerVolumeDir()}
	p, err := startProcess("bridge of "+n.name, filepath.Join(n.c.cfg.Bin, "isolator-bridge"), args, n.Env(), n.c.cfg.Output)
	if err != nil {
		return err
	}
	n.bridge = p
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return Poll(ctx, "the bridge of "+n.name+" to serve", func() (bool, string, error) {
		select {
		case <-p.Done():
			return false, "", fmt.Errorf("it ended (%v): %s", p.Err(), p.Output())
		default:
		}
		conn, err := net.Dial("tcp", n.bridgeAttribute())
		if err != nil {
			return false, err.Error(), nil
		}
		return true, "", conn.Close()
	})
}

// KillBridge kills the node's bridge.
func (n *Node) KillBridge() {
	if n.bridge != nil {
		n.bridge.Kill()
		n.bridge = nil
	}
}

// stopBridge ends it in order.
func (n *Node) stopBridge(ctx context.Context) error {
	if n.bridge == nil {
		return nil
	}
	select {
	case <-n.bridge.Done():
		return errors.Join(n.bridge.Err(), errors.New("the bridge of "+n.name+" ended by itself"))
	default:
		return n.bridge.Stop(ctx)
	}
}
