package mesos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// AgentRemoved asks the leading master whether it has no agent with this id: not
// registered, and not expected back after the master's own restart. That is also
// so for an agent that the master holds for unreachable, which may return with
// its tasks: only together with the master's word that an operator removed it
// (TASK_GONE_BY_OPERATOR) does it mean that the agent is gone.
//
// Any doubt, a refusal for lack of rights included, is an error.
func (c *Conn) AgentRemoved(ctx context.Context, agentID string) (bool, error) {
	removed, err := c.agentRemoved(ctx, agentID)
	if err != nil {
		return false, fmt.Errorf("ask the Mesos master for agent %s: %w", agentID, err)
	}
	return removed, nil
}

func (c *Conn) agentRemoved(ctx context.Context, agentID string) (bool, error) {
	sub, _, err := c.current()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.CallTimeout)
	defer cancel()
	answer, err := c.operatorCall(ctx, sub.base, master.Call_GET_AGENTS)
	if err != nil {
		return false, err
	}
	agents := answer.GetGetAgents()
	if agents == nil {
		return false, fmt.Errorf("the answer is %s, not GET_AGENTS", answer.Type)
	}
	for i := range agents.Agents {
		if agents.Agents[i].AgentInfo.GetID().GetValue() == agentID {
			return false, nil
		}
	}
	for i := range agents.RecoveredAgents {
		if agents.RecoveredAgents[i].GetID().GetValue() == agentID {
			return false, nil
		}
	}
	return true, nil
}

// UnreachableTasks asks the leading master for the framework's tasks on agents
// that are unreachable (Response.GetTasks in master.proto). Any doubt, a refusal
// for lack of rights included, is an error.
func (c *Conn) UnreachableTasks(ctx context.Context) ([]core.Status, error) {
	tasks, err := c.unreachableTasks(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the Mesos master for tasks on unreachable agents: %w", err)
	}
	return tasks, nil
}

func (c *Conn) unreachableTasks(ctx context.Context) (out []core.Status, err error) {
	sub, id, err := c.current()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.CallTimeout)
	defer cancel()
	if err := c.seesFramework(ctx, sub.base, id); err != nil {
		return nil, err
	}
	answer, err := c.operatorCall(ctx, sub.base, master.Call_GET_TASKS)
	if err != nil {
		return nil, err
	}
	tasks := answer.GetGetTasks()
	if tasks == nil {
		return nil, fmt.Errorf("the answer is %s, not GET_TASKS", answer.Type)
	}
	for i := range tasks.UnreachableTasks {
		if t := &tasks.UnreachableTasks[i]; t.FrameworkID.Value == id {
			out = append(out, core.Status{TaskID: t.TaskID.Value, AgentID: t.AgentID.Value,
				State: mesosgo.TASK_UNREACHABLE.String(), Source: mesosgo.SOURCE_MASTER.String()})
		}
	}
	return out, nil
}

// seesFramework makes sure that the master shows us our own framework: of what a
// principal may not see it leaves out all without a word
// (ReadOnlyHandler::getTasks).
func (c *Conn) seesFramework(ctx context.Context, base *url.URL, id string) error {
	answer, err := c.operatorCall(ctx, base, master.Call_GET_FRAMEWORKS)
	if err != nil {
		return err
	}
	frameworks := answer.GetGetFrameworks()
	if frameworks == nil {
		return fmt.Errorf("the answer is %s, not GET_FRAMEWORKS", answer.Type)
	}
	for i := range frameworks.Frameworks {
		if frameworks.Frameworks[i].FrameworkInfo.GetID().GetValue() == id {
			return nil
		}
	}
	return fmt.Errorf("it does not show framework %s: let its principal view frameworks and tasks in the master's ACLs", id)
}

func (c *Conn) operatorCall(ctx context.Context, base *url.URL, kind master.Call_Type) (*master.Response, error) {
	resp, _, err := c.transport.postToLeader(ctx, base, operatorPath, &master.Call{Type: kind})
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, &core.CallError{Call: kind.String(), Status: resp.StatusCode, Body: explanation(resp)}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.config.MaxFrame+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > c.config.MaxFrame {
		return nil, fmt.Errorf("the answer is larger than %d bytes", c.config.MaxFrame)
	}
	var answer master.Response
	if err := decode(body, &answer); err != nil {
		return nil, err
	}
	return &answer, nil
}
