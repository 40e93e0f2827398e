package mesos

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"time"

	"github.com/gogo/protobuf/proto"
	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// decode decodes a message and turns a panic of the generated decoder into an
// error: it indexes beyond the end of crafted input (as in CVE-2021-3121).
func decode(data []byte, into proto.Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decoder panicked: %v", p)
		}
	}()
	return proto.Unmarshal(data, into)
}

// translate turns an event into those of the core, mostly one. known is false
// for types that are newer than this code.
func (c *Conn) translate(e *scheduler.Event) (events []core.Event, known bool) {
	switch e.Type {
	case scheduler.Event_OFFERS:
		var offers core.Offers
		for i := range e.GetOffers().GetOffers() {
			offers.Offers = append(offers.Offers, c.offer(&e.Offers.Offers[i]))
		}
		return []core.Event{offers}, true
	case scheduler.Event_RESCIND:
		return []core.Event{core.Rescind{OfferID: e.GetRescind().GetOfferID().Value}}, true
	case scheduler.Event_UPDATE:
		if e.Update == nil {
			return nil, true
		}
		return []core.Event{status(&e.Update.Status)}, true
	case scheduler.Event_UPDATE_OPERATION_STATUS:
		if e.UpdateOperationStatus == nil {
			return nil, true
		}
		return []core.Event{operationStatus(&e.UpdateOperationStatus.Status)}, true
	case scheduler.Event_FAILURE:
		return []core.Event{core.Failure{
			AgentID:    e.GetFailure().GetAgentID().GetValue(),
			ExecutorID: e.GetFailure().GetExecutorID().GetValue(),
		}}, true
	case scheduler.Event_INVERSE_OFFERS:
		return []core.Event{inverseOffers(e.GetInverseOffers().GetInverseOffers())}, true
	case scheduler.Event_MESSAGE, scheduler.Event_RESCIND_INVERSE_OFFER:
		// Our tasks' executors send no messages; inverse offers are answered at
		// once, and when maintenance is called off the offers say so.
		c.log.Debug("event without use here is ignored", zap.Stringer("type", e.Type))
		return nil, true
	}
	return nil, false
}

// inverseOffers translates those that are about agents: Mesos makes no others.
func inverseOffers(list []mesosgo.InverseOffer) core.InverseOffers {
	var out core.InverseOffers
	for i := range list {
		o := &list[i]
		out.Offers = append(out.Offers, core.InverseOffer{
			ID: o.OfferID.Value, AgentID: o.GetAgentID().GetValue(),
			At: time.Unix(0, o.Unavailability.Start.Nanoseconds), For: time.Duration(o.Unavailability.GetDuration().GetNanoseconds()),
		})
	}
	return out
}

func subscribedEvent(e *scheduler.Event_Subscribed, connectedTo, streamID string) core.Subscribed {
	master := e.GetMasterInfo()
	return core.Subscribed{
		FrameworkID:       e.GetFrameworkID().GetValue(),
		MasterID:          master.GetID(),
		MasterAddress:     masterAddress(master, connectedTo),
		MasterVersion:     master.GetVersion(),
		Region:            regionOf(master.GetDomain()),
		HeartbeatInterval: seconds(e.GetHeartbeatIntervalSeconds()),
		StreamID:          streamID,
	}
}

// masterAddress is host:port under which the master announces itself, or the
// address that we connected to where it announces none.
func masterAddress(m *mesosgo.MasterInfo, connectedTo string) string {
	host := m.GetAddress().GetHostname()
	if host == "" {
		host = m.GetAddress().GetIP()
	}
	if host == "" {
		host = m.GetHostname()
	}
	port := int64(m.GetAddress().GetPort())
	if port == 0 {
		port = int64(m.GetPort())
	}
	if host == "" || port == 0 {
		return connectedTo
	}
	return net.JoinHostPort(host, strconv.FormatInt(port, 10))
}

func regionOf(d *mesosgo.DomainInfo) string {
	if d.GetFaultDomain() == nil {
		return ""
	}
	return d.FaultDomain.Region.Name
}

func status(w *mesosgo.TaskStatus) core.Status {
	s := core.Status{
		TaskID:      w.TaskID.Value,
		AgentID:     w.GetAgentID().GetValue(),
		State:       w.GetState().String(),
		Source:      w.GetSource().String(),
		Message:     w.GetMessage(),
		UUID:        w.UUID,
		Healthy:     w.Healthy,
		Time:        timestamp(w.GetTimestamp()),
		ContainerID: w.GetContainerStatus().GetContainerID().GetValue(),
		Check:       checkResult(w.CheckStatus),
	}
	if w.Reason != nil {
		s.Reason = w.Reason.String()
	}
	for _, network := range w.GetContainerStatus().GetNetworkInfos() {
		for _, address := range network.IPAddresses {
			if ip := address.GetIPAddress(); ip != "" {
				s.IPs = append(s.IPs, ip)
			}
		}
	}
	return s
}

func checkResult(w *mesosgo.CheckStatusInfo) *core.CheckResult {
	if w == nil {
		return nil
	}
	result := &core.CheckResult{}
	if code := w.GetHTTP(); code != nil && code.StatusCode != nil {
		result.HTTPStatus = pointer(int(*code.StatusCode))
	}
	if tcp := w.GetTCP(); tcp != nil {
		result.TCPSucceeded = tcp.Succeeded
	}
	if command := w.GetCommand(); command != nil && command.ExitCode != nil {
		result.ExitCode = pointer(int(*command.ExitCode))
	}
	return result
}

func operationStatus(w *mesosgo.OperationStatus) core.OperationStatus {
	return core.OperationStatus{
		OperationID: w.GetOperationID().GetValue(),
		AgentID:     w.GetAgentID().GetValue(),
		ProviderID:  w.GetResourceProviderID().GetValue(),
		State:       w.State.String(),
		Message:     w.GetMessage(),
		UUID:        w.GetUUID().GetValue(),
	}
}

// timestamp is a time given as seconds since the epoch.
func timestamp(s float64) time.Time {
	whole, fraction := math.Modf(s)
	return time.Unix(int64(whole), int64(fraction*1e9))
}

// seconds is a duration that the master gives as seconds; nonsense is 0.
func seconds(s float64) time.Duration {
	if !(s > 0) || s > math.MaxInt64/1e9 {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}
