// Command volume-plugin is the reference volume plugin: a Docker volume plugin
// whose volumes are directories, or ext4 images of a given size on loop
// devices, in a store that several nodes may share. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := newApp().RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "volume-plugin:", err)
		os.Exit(1)
	}
}

func newApp() *cli.App {
	return &cli.App{
		Name:            "volume-plugin",
		Usage:           "serve Docker volumes from a directory",
		Description:     "Without a command it serves. As root volumes are mounted, otherwise they are linked.",
		HideHelpCommand: true,
		Flags:           append([]cli.Flag{rootFlag()}, serveFlags()...),
		Action:          runServe,
		Commands:        []*cli.Command{listCommand(), detachCommand()},
	}
}

func rootFlag() cli.Flag {
	return &cli.StringFlag{Name: "root", Usage: "`DIR` of the store, shared by all nodes", EnvVars: []string{"VOLUME_PLUGIN_ROOT"}}
}

// rootOf accepts --root before and after the command's name.
func rootOf(c *cli.Context) (string, error) {
	for _, level := range c.Lineage() {
		if root := level.String("root"); root != "" {
			return filepath.Abs(root)
		}
	}
	return "", errors.New("--root is missing: the directory of the store")
}

func serveFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "socket", Usage: "`PATH` of the plugin's socket; its name without .sock is the driver's name", Value: "/run/docker/plugins/ref.sock"},
		&cli.StringFlag{Name: "mounts", Usage: "`DIR` where volumes appear on this node (default: mounts/NODE in the store)"},
		&cli.StringFlag{Name: "node", Usage: "`NAME` of this node in the store (default: the host's name)"},
		&cli.StringFlag{Name: "kind", Usage: "what new volumes are: directory, image, or auto (an image if it has a size)", Value: "auto"},
		&cli.StringFlag{Name: "default-size", Usage: "`SIZE` of images created without one", Value: "1G"},
		&cli.BoolFlag{Name: "single-attach", Usage: "only one node at a time may have a volume, as with block storage"},
		&cli.StringFlag{Name: "scope", Usage: "local or global (default: global with --single-attach, else local)"},
		&cli.StringFlag{Name: "zone", Usage: "`ZONE` in which the volumes can be attached, told in their status"},
		&cli.BoolFlag{Name: "link", Usage: "link volumes instead of mounting them, even as root"},
		&cli.BoolFlag{Name: "unmount-on-exit", Usage: "unmount this node's volumes at the end; otherwise they stay and are adopted at the next start"},
	}
}

func runServe(c *cli.Context) (err error) {
	if c.Args().Present() {
		return fmt.Errorf("unknown command %q; see --help", c.Args().First())
	}
	log, err := newLogger()
	if err != nil {
		return err
	}
	root, err := rootOf(c)
	if err != nil {
		return err
	}
	s, err := createStore(c.Context, root, c.Bool("single-attach"))
	if err != nil {
		return err
	}
	n, err := nodeFromFlags(c, s, log)
	if err != nil {
		return err
	}
	defer n.close()
	d, err := driverFromFlags(c, n, log)
	if err != nil {
		return err
	}
	if err := errors.Join(s.sweep(), n.recover(c.Context)); err != nil {
		return err
	}
	log.Info("serving", zap.String("socket", c.String("socket")), zap.String("root", root), zap.String("node", n.name),
		zap.Bool("singleAttach", s.singleAttach), zap.Bool("linked", n.link))
	err = serve(c.Context, c.String("socket"), d)
	if c.Bool("unmount-on-exit") {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		err = errors.Join(err, n.detachAll(ctx))
	}
	return err
}

func newLogger() (*zap.Logger, error) {
	config := zap.NewProductionConfig()
	config.EncoderConfig.EncodeTime = zapcore.RFC3339TimeEncoder
	config.DisableStacktrace = true
	config.DisableCaller = true
	config.Sampling = nil
	return config.Build()
}

func nodeFromFlags(c *cli.Context, s *store, log *zap.Logger) (*node, error) {
	name := c.String("node")
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("node name: %w; set --node", err)
		}
		name = host
	}
	mounts := c.String("mounts")
	if mounts == "" {
		mounts = filepath.Join(s.root, "mounts", keyOf(name))
	}
	n, err := openNode(c.Context, s, name, mounts, c.Bool("link"), log)
	if err != nil || n.link {
		return n, err
	}
	if err := canMount(n.mounts); err != nil {
		log.Warn("volumes are linked instead of mounted", zap.NamedError("reason", err))
		n.link = true
	}
	return n, nil
}

func driverFromFlags(c *cli.Context, n *node, log *zap.Logger) (*driver, error) {
	d := &driver{node: n, scope: c.String("scope"), zone: c.String("zone"), log: log}
	var err error
	if d.kinds, err = kindsFromFlags(c, n.link, log); err != nil {
		return nil, err
	}
	switch d.scope {
	case "local", "global":
	case "":
		d.scope = "local"
		if n.store.singleAttach {
			d.scope = "global"
		}
	default:
		return nil, fmt.Errorf("--scope %q: want local or global", d.scope)
	}
	return d, nil
}

func kindsFromFlags(c *cli.Context, link bool, log *zap.Logger) (kindChooser, error) {
	kinds := kindChooser{kind: c.String("kind")}
	var err error
	if kinds.defaultSize, err = parseSize(c.String("default-size")); err != nil {
		return kinds, fmt.Errorf("--default-size: %w", err)
	}
	reason := errors.New("volumes are linked, and an image has to be mounted")
	if !link {
		reason = canMakeImages()
	}
	kinds.images = reason == nil
	switch kinds.kind {
	case kindDirectory:
	case kindImage:
		if !kinds.images {
			return kinds, fmt.Errorf("--kind image is not possible here: %w", reason)
		}
	case "auto":
		if !kinds.images {
			log.Warn("the size of volumes is not enforced", zap.NamedError("reason", reason))
		}
	default:
		return kinds, fmt.Errorf("--kind %q: want auto, directory or image", kinds.kind)
	}
	return kinds, nil
}
