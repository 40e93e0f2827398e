package app

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Who may use a volume at the same time.
const (
	AccessOneTask     = "one-task"     // one task, whatever its app says
	AccessOneAgent    = "one-agent"    // tasks on one agent, of apps that say shared
	AccessManyReaders = "many-readers" // any agents, mounted read-only
	AccessManyWriters = "many-writers" // any agents: the backend takes care
)

var accesses = []string{AccessOneTask, AccessOneAgent, AccessManyReaders, AccessManyWriters}

// What becomes of a volume that nobody owns any more: its app was deleted, or
// scaled down so that the instance is gone that had it, or killed and wiped.
const (
	ReclaimRetain = "retain" // it is kept, with its data
	ReclaimDelete = "delete" // it is removed, with its data
)

// On how many hosts a volume exists: ScopeLocal binds it to the host that has it.
const (
	ScopeLocal  = "local"
	ScopeGlobal = "global"
)

// FenceNone means that only what the agents report ends a claim.
const FenceNone = "none"

// VolumeClass is a kind of volume that the operator offers. An app names it by
// the option dvdi/class in place of a driver and its options. A volume keeps its
// class as it was when the app first named it: a class that the operator changes
// later changes no volume that exists.
type VolumeClass struct {
	Name   string `json:"name" yaml:"-"`
	Driver string `json:"driver" yaml:"driver"`
	// Options go to the driver; the app cannot set them.
	Options map[string]string `json:"options,omitempty" yaml:"options"`
	// Access is one of the Access constants [AccessOneTask].
	Access  string `json:"access" yaml:"access"`
	Reclaim string `json:"reclaim" yaml:"reclaim"` // [ReclaimRetain]
	Fence   string `json:"fence" yaml:"fence"`     // [FenceNone]
	// ExplicitCreate volumes must exist: mounting never creates one.
	ExplicitCreate bool `json:"explicitCreate,omitempty" yaml:"explicitCreate"`
	// BackendExclusive says that the backend itself refuses a second
	// attachment, so that a claim ends with its task.
	BackendExclusive bool `json:"backendExclusive,omitempty" yaml:"backendExclusive"`
	// Scope is ScopeLocal or ScopeGlobal; empty: what the driver says on the
	// agent, if that is known.
	Scope string `json:"scope,omitempty" yaml:"scope"`
	// Zonal volumes can be attached only in the zone of the agent on which they
	// were used first. Without it the word of the driver counts, if it tells a
	// zone and Scope is not ScopeGlobal.
	Zonal bool `json:"zonal,omitempty" yaml:"zonal"`
}

var classNamePattern = regexp.MustCompile(`^` + labelExpr + `$`)

// Complete fills in defaults and checks a class that the operator defined. The
// error names every mistake.
func (c VolumeClass) Complete(name string) (VolumeClass, error) {
	c.Name = name
	setDefault(&c.Access, AccessOneTask)
	setDefault(&c.Reclaim, ReclaimRetain)
	setDefault(&c.Fence, FenceNone)
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("volume class %s: %w", name, fmt.Errorf(format, args...)))
	}
	if !classNamePattern.MatchString(name) {
		wrong("the name must consist of lower-case letters, digits and inner hyphens")
	}
	if !labelPattern.MatchString(c.Driver) {
		wrong("driver %q must be the name of a volume driver", c.Driver)
	}
	if !slices.Contains(accesses, c.Access) {
		wrong("access %q is none of %s", c.Access, strings.Join(accesses, ", "))
	}
	switch {
	case c.Reclaim != ReclaimRetain && c.Reclaim != ReclaimDelete:
		wrong("reclaim %q is neither %s nor %s", c.Reclaim, ReclaimRetain, ReclaimDelete)
	case c.Reclaim == ReclaimDelete && (c.Access == AccessManyReaders || c.Access == AccessManyWriters):
		wrong("reclaim %s and access %s exclude each other: where such a volume is in use is not known; remove unused ones with dvdcli remove", c.Reclaim, c.Access)
	}
	if _, err := parseFence(c.Fence); err != nil {
		wrong("%w", err)
	}
	switch {
	case c.Scope != "" && c.Scope != ScopeLocal && c.Scope != ScopeGlobal:
		wrong("scope %q is neither %s nor %s", c.Scope, ScopeLocal, ScopeGlobal)
	case c.Scope == ScopeLocal && (c.Access == AccessManyReaders || c.Access == AccessManyWriters):
		wrong("scope %s and access %s exclude each other: tasks on other agents would each have a volume of their own", c.Scope, c.Access)
	}
	for _, key := range sortedKeys(c.Options) {
		if !optionKeyPattern.MatchString("dvdi/"+key) || strings.HasPrefix("dvdi/"+key, engineOption) {
			wrong("option %q is no name of a driver's option; write it without dvdi/", key)
		}
	}
	return c, errors.Join(errs...)
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// Access says who may use the volume at the same time.
func (e *External) Access() string {
	switch {
	case e.Class != nil && (e.Class.Access != AccessOneAgent || e.Shared):
		return e.Class.Access
	case e.Class == nil && e.Shared:
		return AccessOneAgent
	}
	return AccessOneTask
}

// anyAgents says whether the volume may be in use on several agents.
func (e *External) anyAgents() bool {
	return e.CSI == nil && (e.Access() == AccessManyReaders || e.Access() == AccessManyWriters)
}

// resolveClasses puts the operator's classes to the volumes that name them. A
// volume that the stored definition has already keeps the class as it was.
func resolveClasses(p *problems, a *App, opts Options, stored *App) {
	for _, i := range a.ExternalVolumes() {
		e := a.Container.Volumes[i].External
		name, named := e.Options[classOption]
		if !named || e.Provider != DVDI {
			continue
		}
		path := indexed("/container/volumes", i) + "/external/options"
		class, known := opts.Classes[name]
		if kept := stored.classOf(e); kept != nil {
			class, known = *kept, true
		}
		if !known {
			p.addf(path+`("`+classOption+`")`, "is no volume class; there are: [%s]", strings.Join(sortedKeys(opts.Classes), ","))
			// No second complaint that the driver is missing.
			e.Class = &VolumeClass{Name: name}
			continue
		}
		e.Class = &class
		validateClassUse(p, path, a.Container.Volumes[i], class)
		if a.Container.Type == Docker && (len(class.Options) > 0 || class.ExplicitCreate) {
			p.addf(path+`("`+classOption+`")`, "the volume class %s can not be used in a DOCKER container: Docker gets the driver's name only, "+
				"not the class's options; run the image in a MESOS container", class.Name)
		}
	}
}

// classOf is the class that the stored definition has for the volume, nil if
// none.
func (a *App) classOf(e *External) *VolumeClass {
	for _, v := range a.externals() {
		if c := v.External.Class; c != nil && v.External.Name == e.Name && c.Name == e.Options[classOption] {
			return c
		}
	}
	return nil
}

func validateClassUse(p *problems, path string, v Volume, class VolumeClass) {
	for _, key := range sortedKeys(v.External.Options) {
		option := strings.TrimPrefix(key, "dvdi/")
		if _, set := class.Options[option]; set || key == driverOption {
			p.addf(path+`("`+key+`")`, "is set by the volume class %s; remove the option", class.Name)
		}
	}
	if _, set := class.Options["size"]; set && v.External.Size != nil {
		p.addf(strings.TrimSuffix(path, "/options")+"/size", "is set by the volume class %s; remove it", class.Name)
	}
	if v.External.Shared && class.Access == AccessOneTask {
		p.addf(strings.TrimSuffix(path, "/options")+"/shared", "must be false: the volume class %s allows one task at a time", class.Name)
	}
	if class.Access == AccessManyReaders && v.Mode != readOnly {
		p.addf(strings.TrimSuffix(path, "/external/options")+"/mode", "must be RO: the volume class %s only has readers", class.Name)
	}
}

// plainOptions are the options with those of the class spelled out.
func (e *External) plainOptions() map[string]string {
	if e.Class == nil {
		return e.Options
	}
	out := maps.Clone(e.Options)
	delete(out, classOption)
	out[driverOption] = e.Class.Driver
	for key, value := range e.Class.Options {
		out["dvdi/"+key] = value
	}
	return out
}
