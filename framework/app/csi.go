package app

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// CSIOptions are the options of an external volume of provider csi (contract 3.4).
// The volume's name is the id by which the plugin knows it.
type CSIOptions struct {
	PluginName string        `json:"pluginName"`
	Capability CSICapability `json:"capability"`
	// Secrets are names, by the key that the plugin knows them by.
	NodeStageSecret   map[string]string `json:"nodeStageSecret,omitempty"`
	NodePublishSecret map[string]string `json:"nodePublishSecret,omitempty"`
	VolumeContext     map[string]string `json:"volumeContext,omitempty"`
}

// CSICapability is how the volume is to be used.
type CSICapability struct {
	AccessMode string   `json:"accessMode"`
	AccessType string   `json:"accessType"`       // mount or block
	FSType     string   `json:"fsType,omitempty"` // of mount
	MountFlags []string `json:"mountFlags,omitempty"`
}

// The access modes of CSI.
const (
	SingleNodeWriter      = "SINGLE_NODE_WRITER"
	SingleNodeReaderOnly  = "SINGLE_NODE_READER_ONLY"
	MultiNodeReaderOnly   = "MULTI_NODE_READER_ONLY"
	MultiNodeSingleWriter = "MULTI_NODE_SINGLE_WRITER"
	MultiNodeMultiWriter  = "MULTI_NODE_MULTI_WRITER"
)

var accessModes = []string{SingleNodeWriter, SingleNodeReaderOnly, MultiNodeReaderOnly, MultiNodeSingleWriter, MultiNodeMultiWriter}

// exclusive says whether only one node may have the volume.
func (c *CSIOptions) exclusive() bool {
	return strings.HasPrefix(c.Capability.AccessMode, "SINGLE_NODE_")
}

// uniqueName says of an external volume whether no other app may name it.
func (v Volume) uniqueName() bool {
	if c := v.External.CSI; c != nil {
		return c.exclusive() || c.Capability.AccessMode == MultiNodeSingleWriter && v.Mode == readWrite
	}
	return !v.External.Shared && !v.External.anyAgents()
}

// external is External in JSON: options are text or those of csi.
type external struct {
	Provider string          `json:"provider"`
	Name     string          `json:"name"`
	Size     *int64          `json:"size,omitempty"`
	Shared   bool            `json:"shared,omitempty"`
	Options  json.RawMessage `json:"options"`
	Class    *VolumeClass    `json:"class,omitempty"`
}

// MarshalJSON writes the options in the form of the provider.
func (e External) MarshalJSON() ([]byte, error) {
	var options any = e.Options
	if e.CSI != nil {
		options = e.CSI
	}
	raw, err := json.Marshal(options)
	if err != nil {
		return nil, fmt.Errorf("options of volume %s: %w", e.Name, err)
	}
	return json.Marshal(external{e.Provider, e.Name, e.Size, e.Shared, raw, e.Class})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *External) UnmarshalJSON(data []byte) error {
	var in external
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("external volume: %w", err)
	}
	*e = External{Provider: in.Provider, Name: in.Name, Size: in.Size, Shared: in.Shared, Class: in.Class}
	var target any = &e.Options
	if in.Provider == CSI {
		e.CSI = &CSIOptions{}
		target = e.CSI
	}
	if err := json.Unmarshal(in.Options, target); err != nil {
		return fmt.Errorf("options of volume %s: %w", in.Name, err)
	}
	return nil
}

func readCSI(o object) *CSIOptions {
	c := &CSIOptions{}
	opts, ok := o.object("options")
	if !ok {
		o.require("options")
		return c
	}
	opts.require("pluginName")
	c.PluginName = opts.strLen("pluginName", 1, 0)
	c.NodeStageSecret = opts.stringMap("nodeStageSecret")
	c.NodePublishSecret = opts.stringMap("nodePublishSecret")
	c.VolumeContext = opts.stringMap("volumeContext")
	opts.require("capability")
	if capability, ok := opts.object("capability"); ok {
		capability.require("accessMode")
		capability.require("accessType")
		c.Capability = CSICapability{
			AccessMode: capability.str("accessMode"),
			AccessType: capability.str("accessType"),
			FSType:     capability.str("fsType"),
			MountFlags: capability.strings("mountFlags"),
		}
	}
	return c
}

func validateCSI(p *problems, path string, v Volume, opts Options) {
	if !opts.CSI {
		p.add(path+"/external/provider", "csi is not supported yet; use dvdi with a driver that reaches the same backend")
	}
	e, capability := v.External, v.External.CSI.Capability
	where := path + "/external/options/capability"
	if !slices.Contains(accessModes, capability.AccessMode) {
		p.addf(where+"/accessMode", "got %s, expected one of: [%s]", capability.AccessMode, strings.Join(accessModes, ","))
	}
	switch capability.AccessType {
	case "block":
	case "mount":
		if capability.FSType == "" {
			p.add(where+"/fsType", "must not be empty")
		}
	default:
		p.addf(where+"/accessType", "got %s, expected one of: [mount,block]", capability.AccessType)
	}
	if strings.HasSuffix(capability.AccessMode, "_READER_ONLY") && v.Mode == readWrite {
		p.add(path+"/volume", "CSI volume must be mounted readonly with a read-only access mode")
	}
	if e.Size != nil {
		p.add(path+"/external/size", "must be undefined for CSI volumes")
	}
	if e.Shared {
		p.add(path+"/external/shared", "must be undefined for CSI volumes; the access mode says it")
	}
}

// validateCSIInstances holds the number of instances that the access modes
// allow.
func validateCSIInstances(p *problems, a *App) {
	if a.Instances < 2 {
		return
	}
	for _, i := range a.ExternalVolumes() {
		v := a.Container.Volumes[i]
		if v.External.CSI == nil {
			continue
		}
		switch {
		case v.External.CSI.exclusive():
			p.addf("/instances", "got %d, expected 1 or less while non-shareable CSI volumes are defined", a.Instances)
			return
		case v.External.CSI.Capability.AccessMode == MultiNodeSingleWriter && v.Mode == readWrite:
			p.addf("/instances", "got %d, expected 1 or less while a multi-node single-writer volume is defined mounted as read/write", a.Instances)
			return
		}
	}
}
