package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
)

func detachCommand() *cli.Command {
	return &cli.Command{
		Name:      "detach",
		Usage:     "take a volume from the node that has it, after that node was lost",
		ArgsUsage: "VOLUME",
		Flags: []cli.Flag{
			rootFlag(),
			&cli.BoolFlag{Name: "force", Usage: "I am certain that the node no longer writes to the volume"},
			&cli.DurationFlag{Name: "timeout", Usage: "how long to wait for a call that is under way", Value: 30 * time.Second},
		},
		Action: runDetach,
	}
}

func runDetach(c *cli.Context) error {
	if c.NArg() != 1 {
		return errors.New("detach: want one volume, after the flags: volume-plugin --root DIR detach --force VOLUME")
	}
	s, err := storeOf(c)
	if err != nil {
		return err
	}
	name := c.Args().First()
	r, err := s.get(name)
	if err != nil {
		return err
	}
	if len(r.Attachments) == 0 {
		fmt.Fprintf(c.App.Writer, "volume %q is attached to no node\n", name)
		return nil
	}
	if !c.Bool("force") {
		return fmt.Errorf("volume %q is attached to %s; unmount it there, or use --force once it is certain that it is written there no more",
			name, r.holders())
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	freed, err := s.forceDetach(ctx, name)
	for _, a := range freed {
		fmt.Fprintf(c.App.Writer, "volume %q detached from node %q\n", name, a.Node)
	}
	return err
}

func listCommand() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "show the volumes and who has them",
		Flags: []cli.Flag{
			rootFlag(),
			&cli.BoolFlag{Name: "json", Usage: "the store's records, one JSON object per line"},
		},
		Action: runList,
	}
}

func runList(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("list: unexpected argument %q", c.Args().First())
	}
	s, err := storeOf(c)
	if err != nil {
		return err
	}
	records, err := s.list()
	if c.Bool("json") {
		encoder := json.NewEncoder(c.App.Writer)
		for _, r := range records {
			err = errors.Join(err, encoder.Encode(r))
		}
		return err
	}
	return errors.Join(err, printTable(c.App.Writer, s, records))
}

func printTable(w io.Writer, s *store, records []*record) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VOLUME\tKIND\tSIZE\tNODE\tSINCE\tPLUGIN\tMOUNTPOINT")
	for _, r := range records {
		size := "-"
		if r.Size > 0 {
			size = formatSize(r.Size)
		}
		if len(r.Attachments) == 0 {
			fmt.Fprintf(table, "%q\t%s\t%s\t-\t-\t-\t-\n", r.Name, r.Kind, size)
		}
		for _, a := range r.Attachments {
			fmt.Fprintf(table, "%q\t%s\t%s\t%s\t%s\t%s\t%s\n",
				r.Name, r.Kind, size, a.Node, a.Since.Format(time.RFC3339), s.pluginState(a.Node), a.Mountpoint)
		}
	}
	return table.Flush()
}

// pluginState says whether the plugin of a node runs: it holds the node's
// lock as long as it does.
func (s *store) pluginState(node string) string {
	held, err := tryLock(s.nodeLock(node))
	if errors.Is(err, errLocked) {
		return "running"
	}
	if err != nil {
		return "unknown"
	}
	held.unlock()
	return "stopped"
}

func storeOf(c *cli.Context) (*store, error) {
	root, err := rootOf(c)
	if err != nil {
		return nil, err
	}
	return openStore(root)
}
