package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/top"
)

const (
	flagSocket    = "socket"
	flagContainer = "container"
	flagOwner     = "owner"
	flagDeadline  = "deadline"
)

// remoteCommands are those that talk to a running bridge over its socket.
func remoteCommands() []*cli.Command {
	container := []cli.Flag{
		&cli.StringFlag{Name: flagContainer, Usage: "`id` of the container", Required: true},
		ownerFlag(),
	}
	return []*cli.Command{
		{Name: "prepare", Usage: "mount the volumes of a container, all or none", Flags: remoteFlags(2*time.Minute, append(container,
			&cli.StringSliceFlag{Name: "volume", Usage: "`driver=D,name=N[,path=P][,explicit=true]`; may be given several times"},
			&cli.StringSliceFlag{Name: "volumeopts", Usage: "`key=value` options of the volume with the same place among --volume"},
			&cli.BoolFlag{Name: "environment", Usage: "take the volumes from this process's DVDI_VOLUME_ variables"})...), Action: remote(prepare)},
		{Name: "cleanup", Usage: "give up the volumes of a container that has ended", Flags: remoteFlags(10*time.Minute, container...), Action: remote(cleanup)},
		{Name: "recover", Usage: "tell the bridge which containers there are; it gives up the volumes of others", Flags: remoteFlags(10*time.Minute, ownerFlag(),
			&cli.StringSliceFlag{Name: "known", Usage: "`id` of a container that runs"},
			&cli.BoolFlag{Name: "none", Usage: "there is no container any more: give up the volumes of all"},
			&cli.StringSliceFlag{Name: "orphan", Usage: "`id` of a container that will be killed and cleaned up"}), Action: remote(recoverContainers)},
		{Name: "usage", Usage: "tell how full the volumes of a container are", Flags: remoteFlags(time.Minute, container...), Action: remote(usage)},
		{Name: "report", Usage: "tell what the bridge found and did when it started", Flags: remoteFlags(time.Minute), Action: remote(report)},
		{Name: "watch", Usage: "print what happens to volumes, one JSON object per line", Flags: remoteFlags(0,
			&cli.StringFlag{Name: flagContainer, Usage: "`id` of a container; all without it"}), Action: remote(watch)},
		{Name: "top", Usage: "show volumes, holders and operations, live", Flags: remoteFlags(0,
			&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "`time` between two looks"},
			&cli.BoolFlag{Name: "once", Usage: "print once and end"}), Action: remote(showTop)},
	}
}

func ownerFlag() cli.Flag {
	return &cli.StringFlag{Name: flagOwner, Usage: "`name` that tells callers apart that share a bridge"}
}

func remoteFlags(deadline time.Duration, more ...cli.Flag) []cli.Flag {
	out := append(more,
		&cli.StringFlag{Name: flagSocket, Usage: "`socket` of the bridge (default: bridge.sock in the run directory)", EnvVars: []string{"DVDI_BRIDGE_SOCKET"}},
		&cli.StringFlag{Name: flagConfig, Usage: "settings `file` of the bridge, which may name the socket", DefaultText: defaultConfigFile + " if it exists", EnvVars: []string{"DVDI_BRIDGE_CONFIG"}},
		&cli.StringFlag{Name: "run-dir", Usage: "run `directory` of the bridge", EnvVars: []string{"DVDI_BRIDGE_RUN_DIR", "DVDCLI_RUN_DIR"}})
	if deadline > 0 {
		out = append(out, &cli.DurationFlag{Name: flagDeadline, Value: deadline, Usage: "`time` after which to give up waiting"})
	}
	return out
}

// call is what a command does with the API.
type call func(context.Context, *cli.Context, client.IsolatorClient) error

// remote connects and makes a call.
func remote(do call) cli.ActionFunc {
	return func(c *cli.Context) (err error) {
		if c.Args().Present() {
			return fmt.Errorf("unexpected argument %q", c.Args().First())
		}
		path := c.String(flagSocket)
		if path == "" {
			if path, err = configuredSocket(c); err != nil {
				return err
			}
		}
		ctx := c.Context
		if d := c.Duration(flagDeadline); d > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
		}
		// Not as "unix:" and the path: gRPC would take "#" and "?" in it for parts
		// of a URL.
		conn, err := grpc.NewClient("passthrough:///bridge", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}))
		if err != nil {
			return fmt.Errorf("bridge at %s: %w", path, err)
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		if err := do(ctx, c, client.NewIsolatorClient(conn)); err != nil {
			return explain(c.App.Writer, path, err)
		}
		return nil
	}
}

// configuredSocket is where a bridge with this environment and settings file is.
func configuredSocket(c *cli.Context) (string, error) {
	s := defaultSettings()
	if !c.IsSet("run-dir") {
		if err := s.readFile(c.String(flagConfig), c.IsSet(flagConfig)); err != nil {
			return "", err
		}
	}
	if dir := c.String("run-dir"); dir != "" {
		s.runDir, s.socket = dir, ""
	}
	path := s.socketPath()
	if path == "" {
		return "", errors.New("the settings say that the bridge has no socket; name one with --socket")
	}
	return path, nil
}

// explain prints the outcomes that a failure carries and makes its text short.
func explain(w io.Writer, path string, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, d := range st.Details() {
		if m, ok := d.(proto.Message); ok {
			if printErr := printJSON(w, m); printErr != nil {
				return errors.Join(err, printErr)
			}
		}
	}
	hint := ""
	if st.Code() == codes.Unavailable {
		hint = "; is the bridge running? start it with `isolator-bridge serve`, or name its socket with --socket"
	}
	return fmt.Errorf("bridge at %s: %s: %s%s", path, st.Code(), st.Message(), hint)
}

// printJSON prints a message for people and scripts. protojson varies its blanks
// on purpose; scripts compare.
func printJSON(w io.Writer, m proto.Message) error {
	data, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return err
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func prepare(ctx context.Context, c *cli.Context, api client.IsolatorClient) error {
	req := &client.PrepareRequest{ContainerId: c.String(flagContainer), Owner: c.String(flagOwner)}
	if c.Bool("environment") {
		req.Environment = map[string]string{}
		for _, kv := range os.Environ() {
			if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "DVDI_VOLUME_") {
				req.Environment[name] = value
			}
		}
	}
	options := c.StringSlice("volumeopts")
	if n := len(c.StringSlice("volume")); len(options) > n {
		return fmt.Errorf("--volumeopts is given %d times for %d volumes: give each after its --volume", len(options), n)
	}
	for n, text := range c.StringSlice("volume") {
		v, err := parseVolume(text)
		if err != nil {
			return err
		}
		if n < len(options) {
			parsed, err := engine.ParseOptions(options[n : n+1])
			if err != nil {
				return err
			}
			v.Options = parsed.Driver
			maps.Copy(v.Options, parsed.Engine)
		}
		req.Volumes = append(req.Volumes, v)
	}
	out, err := api.Prepare(ctx, req)
	if err != nil {
		return err
	}
	return printJSON(c.App.Writer, out)
}

func parseVolume(text string) (*client.VolumeRequest, error) {
	v := &client.VolumeRequest{Name: &client.VolumeName{}}
	for _, piece := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(piece, "=")
		switch {
		case ok && key == "driver":
			v.Name.Driver = value
		case ok && key == "name":
			v.Name.Name = value
		case ok && key == "path":
			v.ContainerPath = value
		case ok && key == "explicit" && (value == "true" || value == "false"):
			v.ExplicitCreate = value == "true"
		default:
			return nil, fmt.Errorf("--volume %q: write driver=D,name=N[,path=P][,explicit=true]", text)
		}
	}
	return v, nil
}

func cleanup(ctx context.Context, c *cli.Context, api client.IsolatorClient) error {
	out, err := api.Cleanup(ctx, &client.CleanupRequest{ContainerId: c.String(flagContainer), Owner: c.String(flagOwner)})
	if err != nil {
		return err
	}
	return printJSON(c.App.Writer, out)
}

func recoverContainers(ctx context.Context, c *cli.Context, api client.IsolatorClient) error {
	if known, none := len(c.StringSlice("known"))+len(c.StringSlice("orphan")) > 0, c.Bool("none"); known == none {
		return errors.New("name the containers that there are with --known and --orphan; --none says that there is none and gives up the volumes of all")
	}
	out, err := api.Recover(ctx, &client.RecoverRequest{Owner: c.String(flagOwner), Known: c.StringSlice("known"), Orphans: c.StringSlice("orphan")})
	if err != nil {
		return err
	}
	return printJSON(c.App.Writer, out)
}

func usage(ctx context.Context, c *cli.Context, api client.IsolatorClient) error {
	out, err := api.Usage(ctx, &client.UsageRequest{ContainerId: c.String(flagContainer), Owner: c.String(flagOwner)})
	if err != nil {
		return err
	}
	return printJSON(c.App.Writer, out)
}

func report(ctx context.Context, c *cli.Context, api client.IsolatorClient) error {
	out, err := api.GetReport(ctx, &client.GetReportRequest{})
	if err != nil {
		return err
	}
	return printJSON(c.App.Writer, out)
}

func watch(ctx context.Context, c *cli.Context, api client.IsolatorClient) error {
	stream, err := api.Watch(ctx, &client.WatchRequest{ContainerId: c.String(flagContainer)})
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		line, err := protojson.Marshal(event)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.App.Writer, string(line)); err != nil {
			return err
		}
	}
}

func showTop(ctx context.Context, c *cli.Context, api client.IsolatorClient) error {
	return top.Run(ctx, top.Config{API: api, Interval: c.Duration("interval"), Once: c.Bool("once"), Out: os.Stdout, In: os.Stdin})
}
