package mesos

import (
	"errors"
	"fmt"
	"net/url"
	"slices"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// info is who we are for the next SUBSCRIBE. It is an error where the master does
// not answer that is asked for it.
func (s *session) info(base *url.URL) (*mesosgo.FrameworkInfo, error) {
	c := s.conn
	own := c.frameworkInfo()
	if !c.config.AsRegistered || own.ID == nil {
		return own, nil
	}
	known, err := c.registered(s, base, own.ID.Value)
	var refusal *core.CallError
	switch {
	case errors.As(err, &refusal) && !refusal.Temporary():
		c.log.Info("the Mesos master does not tell how it knows the framework; its name and the like become those of this command",
			zap.String("framework_id", own.ID.Value), zap.Error(err))
		return own, nil
	case err != nil:
		return nil, err
	case known == nil:
		return own, nil
	}
	known.Principal = own.Principal // who asks
	if c.rolesRefused() {
		known.Roles, known.Role = own.Roles, nil
	}
	return known, nil
}

// registered is a framework as the master at base knows it, nil if it shows none
// of that id.
func (c *Conn) registered(s *session, base *url.URL, id string) (*mesosgo.FrameworkInfo, error) {
	timer := s.watch(c.config.CallTimeout)
	defer timer.Stop()
	answer, err := c.operatorCall(s.ctx, base, master.Call_GET_FRAMEWORKS)
	if err != nil {
		return nil, fmt.Errorf("ask the Mesos master how it knows framework %s: %w", id, err)
	}
	frameworks := answer.GetGetFrameworks()
	if frameworks == nil {
		return nil, fmt.Errorf("ask the Mesos master how it knows framework %s: the answer is %s, not GET_FRAMEWORKS", id, answer.Type)
	}
	all := slices.Clone(frameworks.RecoveredFrameworks) // of which only agents have told since the master started
	for i := range frameworks.Frameworks {
		all = append(all, frameworks.Frameworks[i].FrameworkInfo)
	}
	for i := range all {
		if all[i].GetID().GetValue() == id {
			return &all[i], nil
		}
	}
	return nil, nil
}

// rolesRefused tells whether a subscription was refused for its roles.
func (c *Conn) rolesRefused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.refused) > 0
}
