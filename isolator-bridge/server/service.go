package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/isolator"
)

// The time that the calls may take, whatever the caller allows: below those
// after which Mesos kills mount and unmount.
const (
	prepareLimit = 110 * time.Second
	cleanupLimit = 9*time.Minute + 30*time.Second
	queryLimit   = 30 * time.Second
)

// maxRequestVolumes bounds a request; the environment allows ten.
const maxRequestVolumes = 64

// service implements the Isolator API.
type service struct {
	client.UnimplementedIsolatorServer
	isolator *isolator.Isolator
	keeper   *keeper
	hub      *hub
	disks    disks
}

// Prepare implements client.IsolatorServer.
func (s *service) Prepare(ctx context.Context, req *client.PrepareRequest) (*client.Outcomes, error) {
	if n := len(req.GetVolumes()); n > maxRequestVolumes {
		return nil, failure(&volume.Error{Kind: volume.Invalid, Op: "prepare", Message: fmt.Sprintf("%d volumes, at most %d are allowed", n, maxRequestVolumes)}, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	r := isolator.Request{ID: req.GetContainerId(), Owner: req.GetOwner(), Environment: req.GetEnvironment()}
	for _, v := range req.GetVolumes() {
		r.Volumes = append(r.Volumes, isolator.Spec{Key: keyOf(v.GetName()), Options: v.GetOptions(), Explicit: v.GetExplicitCreate(), ContainerPath: v.GetContainerPath()})
	}
	return answer(s.isolator.Prepare(ctx, r))
}

// Cleanup implements client.IsolatorServer.
func (s *service) Cleanup(ctx context.Context, req *client.CleanupRequest) (*client.Outcomes, error) {
	ctx, cancel := context.WithTimeout(ctx, cleanupLimit)
	defer cancel()
	return answer(s.isolator.Cleanup(ctx, req.GetOwner(), req.GetContainerId()))
}

func answer(out isolator.Outcomes, err error) (*client.Outcomes, error) {
	message := outcomesMessage(out)
	if err != nil {
		return nil, failure(err, message)
	}
	return message, nil
}

// Recover implements client.IsolatorServer.
func (s *service) Recover(ctx context.Context, req *client.RecoverRequest) (*client.RecoverResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, cleanupLimit)
	defer cancel()
	list, err := s.isolator.Recover(ctx, req.GetOwner(), req.GetKnown(), req.GetOrphans())
	if err != nil {
		return nil, failure(err, nil)
	}
	out := &client.RecoverResponse{}
	for _, r := range list {
		out.Containers = append(out.Containers, &client.RecoveredContainer{ContainerId: r.Container,
			Action: actions[r.Action], Volumes: outcomesMessage(r.Outcomes).GetVolumes()})
	}
	return out, nil
}

var actions = map[isolator.Action]client.RecoveredContainer_Action{
	isolator.Kept: client.RecoveredContainer_KEPT, isolator.Left: client.RecoveredContainer_LEFT,
	isolator.Cleaned: client.RecoveredContainer_CLEANED, isolator.Strange: client.RecoveredContainer_STRANGE,
}

// Usage implements client.IsolatorServer.
func (s *service) Usage(ctx context.Context, req *client.UsageRequest) (*client.UsageResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	volumes, err := s.isolator.Volumes(ctx, req.GetOwner(), req.GetContainerId())
	if err != nil {
		return nil, failure(err, nil)
	}
	out := &client.UsageResponse{}
	for _, v := range volumes {
		u := &client.VolumeUsage{Name: nameOf(v.Key), MountPath: v.Path}
		if v.Err != nil {
			u.Problem = v.Err.Error()
		} else {
			s.disks.usage(ctx, u)
		}
		out.Volumes = append(out.Volumes, u)
	}
	return out, nil
}

// Watch implements client.IsolatorServer.
func (s *service) Watch(req *client.WatchRequest, stream client.Isolator_WatchServer) error {
	w := s.hub.add(req.GetContainerId())
	defer s.hub.remove(w)
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case <-s.keeper.stopping:
			return nil
		case e := <-w.events:
			if err := stream.Send(e); err != nil {
				return err
			}
		}
	}
}

// ListVolumes implements client.IsolatorServer.
func (s *service) ListVolumes(context.Context, *client.ListVolumesRequest) (*client.ListVolumesResponse, error) {
	list, agent, err := s.keeper.status()
	if err != nil {
		return nil, failure(err, nil)
	}
	return &client.ListVolumesResponse{Time: timestamppb.Now(), Volumes: list, Agent: agent}, nil
}

// GetReport implements client.IsolatorServer.
func (s *service) GetReport(context.Context, *client.GetReportRequest) (*client.Report, error) {
	r := s.keeper.Report()
	out := &client.Report{Time: timestamppb.New(r.Time), Took: durationpb.New(r.Took), Finished: r.Finished}
	for _, i := range r.Items {
		item := &client.ReportItem{Source: string(i.Source), ContainerId: i.Container, Subject: i.Subject, Found: i.Found, Done: i.Done, Problem: i.Problem}
		if i.Key != (ledger.Key{}) {
			item.Volume = nameOf(i.Key)
		}
		out.Items = append(out.Items, item)
	}
	return out, nil
}

func keyOf(n *client.VolumeName) ledger.Key {
	return ledger.Key{Driver: n.GetDriver(), Volume: n.GetName()}
}

var outcomeStates = map[isolator.State]client.Outcome_State{
	isolator.Mounted: client.Outcome_MOUNTED, isolator.Released: client.Outcome_RELEASED, isolator.Owed: client.Outcome_OWED,
	isolator.Failed: client.Outcome_FAILED, isolator.Lost: client.Outcome_LOST,
}

func outcomesMessage(out isolator.Outcomes) *client.Outcomes {
	m := &client.Outcomes{ContainerId: out.Container, Notes: valid(out.Notes)}
	for _, v := range out.Volumes {
		o := &client.Outcome{Name: nameOf(v.Key), State: outcomeStates[v.State], MountPath: v.Path, ContainerPath: v.ContainerPath,
			Created: v.Created, Shared: v.Shared, HeldBy: v.HeldBy, Notes: valid(v.Notes)}
		if v.Err != nil {
			o.Kind, o.Problem = string(volume.KindOf(v.Err)), strings.ToValidUTF8(v.Err.Error(), "\uFFFD")
		}
		m.Volumes = append(m.Volumes, o)
	}
	return m
}

// valid makes texts of drivers fit for protobuf, whose strings are UTF-8.
func valid(texts []string) []string {
	var out []string
	for _, t := range texts {
		out = append(out, strings.ToValidUTF8(t, "\uFFFD"))
	}
	return out
}

// changed tells watchers what the isolator did.
func (h *hub) changed(c isolator.Change) {
	kind := client.Event_UNKNOWN_KIND
	switch c.Outcome.State {
	case isolator.Mounted:
		kind = client.Event_MOUNTED
	case isolator.Released:
		kind = client.Event_RELEASED
	case isolator.Owed:
		kind = client.Event_OWED
	case isolator.Lost:
		kind = client.Event_BROKEN
	case isolator.Failed:
		return // whoever asked was told
	}
	message := c.Outcome.Path
	if c.Outcome.Err != nil {
		message = c.Outcome.Err.Error()
	}
	h.tell(kind, c.Outcome.Key, []string{c.Container}, strings.ToValidUTF8(message, "\uFFFD"))
}
