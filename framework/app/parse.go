package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
)

// Options is what the operator set that concerns definitions.
type Options struct {
	// Role is the role of apps that name none; empty means "*".
	Role string
	// GroupRole makes the name of the top-level group the role of apps in it
	// that name none, and the only one allowed (--new_group_enforce_role=top).
	GroupRole bool
	// DefaultNetwork names the network of container networks without a name.
	DefaultNetwork string
	// Base is the group that relative ids are resolved in; empty means the
	// root. It is set for apps inside the body of a group.
	Base ID

	// The features that --enable_features switches. External volumes are on
	// unless switched off.
	NoExternalVolumes bool
	CSI               bool // volumes of provider csi
	Secrets           bool
	GPUs              bool

	// Classes are the operator's volume classes by name.
	Classes map[string]VolumeClass

	// SecretKnown tells whether the framework itself knows the value of a
	// secret's source; otherwise the agents are asked for it. Its error is what
	// a launch would be refused for. It may be called from several goroutines.
	// Nil: nobody can tell, as where a file is checked offline.
	SecretKnown func(source string) (bool, error)
}

func (o Options) role() string {
	if o.Role == "" {
		return "*"
	}
	return o.Role
}

// Parse reads a complete app definition, as in POST /v2/apps, and returns it
// canonical: deprecated fields translated, defaults filled in, every rule held
// that concerns the app alone. Service ports may still be 0; see
// ServicePorts. Version is not set. Errors are *SyntaxError and
// *ValidationError.
func Parse(data []byte, opts Options) (*App, error) {
	v, err := decodeTree(data)
	if err != nil {
		return nil, err
	}
	u, err := readUpdate(v, opts, true)
	if err != nil {
		return nil, err
	}
	return u.build(u.fields, u.id, nil)
}

// Update is a change to an app as a client sent it, read but not yet applied.
type Update struct {
	opts     Options
	id       ID
	fields   map[string]any // canonical field names only
	rollback Timestamp
}

// ParseUpdate reads the body of PUT or PATCH /v2/apps/{id}: a full or partial
// definition, or the wish to return to an earlier version. Errors are
// *SyntaxError and *ValidationError.
func ParseUpdate(data []byte, opts Options) (*Update, error) {
	v, err := decodeTree(data)
	if err != nil {
		return nil, err
	}
	return readUpdate(v, opts, false)
}

// ParseUpdates reads the body of PUT or PATCH /v2/apps, a list of updates of
// which each names its app.
func ParseUpdates(data []byte, opts Options) ([]*Update, error) {
	v, err := decodeTree(data)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, &ValidationError{Message: msgShape, Details: []Detail{{Path: "/", Errors: []string{errArray}}}}
	}
	out := make([]*Update, 0, len(list))
	defined := map[ID]bool{}
	for i, item := range list {
		u, err := readUpdate(item, opts, false)
		if err != nil {
			return nil, within(indexed("", i), err)
		}
		if u.id == "" {
			return nil, &ValidationError{Message: "requirement failed: App Update must have app id set"}
		}
		if defined[u.id] {
			return nil, within(indexed("", i), invalidID("is defined twice"))
		}
		defined[u.id] = true
		out = append(out, u)
	}
	return out, nil
}

// readUpdate goes through the stages up to the translation of deprecated
// fields.
func readUpdate(v any, opts Options, needID bool) (*Update, error) {
	s := &shape{}
	o, ok := s.objectAt("", v)
	if !ok {
		return nil, s.err(msgShape)
	}
	d := readDefinition(o)
	l := readLegacy(o)
	if needID {
		o.require("id")
	}
	version := o.str("version")
	if err := s.err(msgShape); err != nil {
		return nil, err
	}
	u := &Update{opts: opts}
	if err := u.setID(o, d.id); err != nil {
		return nil, err
	}
	if version != "" && !needID {
		return u, u.setRollback(o, version)
	}
	var p problems
	u.fields = translateLegacy(&p, o.fields, l)
	return u, p.err(msgInvalid)
}

// within moves the paths of a *ValidationError below path, for definitions that
// are part of a larger body.
func within(path string, err error) error {
	var ve *ValidationError
	if !errors.As(err, &ve) {
		return err
	}
	moved := &ValidationError{Message: ve.Message}
	for _, d := range ve.Details {
		moved.Details = append(moved.Details, Detail{Path: path + strings.TrimSuffix(d.Path, "/"), Errors: d.Errors})
	}
	return moved
}

func (u *Update) setID(o object, id string) error {
	if !o.has("id") {
		return nil
	}
	abs, err := ResolveID(id, u.opts.Base)
	if err != nil {
		return &ValidationError{Message: msgInvalid, Details: []Detail{{Path: o.at("id"), Errors: []string{err.Error()}}}}
	}
	u.id = abs
	return nil
}

func (u *Update) setRollback(o object, version string) error {
	for key := range o.fields {
		if key != "version" && key != "id" {
			return &ValidationError{Message: msgInvalid, Details: []Detail{{
				Path:   "/",
				Errors: []string{"The 'version' field may only be combined with the 'id' field."},
			}}}
		}
	}
	t, err := ParseTimestamp(version)
	u.rollback = t
	return err
}

// ID is the absolute id that the update names, empty if it names none.
func (u *Update) ID() ID { return u.id }

// Rollback returns the version to return to, if that is what the update asks
// for. Apply is not for such updates.
func (u *Update) Rollback() (Timestamp, bool) { return u.rollback, !u.rollback.IsZero() }

// Apply returns the canonical definition of the app id after the update. stored
// is the current definition, nil if the app is new. With partial, absent fields
// keep their stored value (lists and maps are replaced as a whole), otherwise
// they get their default. Errors are *ValidationError.
func (u *Update) Apply(id ID, stored *App, partial bool) (*App, error) {
	fields := u.fields
	if partial && stored != nil {
		base, err := storedFields(stored)
		if err != nil {
			return nil, err
		}
		fields = overlay(stored, base, u.fields)
	}
	return u.build(fields, id, stored)
}

func storedFields(a *App) (map[string]any, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("app %s: encode the stored definition: %w", a.ID, err)
	}
	v, err := decodeTree(b)
	if err != nil {
		return nil, fmt.Errorf("app %s: read the stored definition: %w", a.ID, err)
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("app %s: the stored definition is not an object", a.ID)
	}
	return fields, nil
}

// overlay puts the fields of an update over base, the JSON of stored. Stored
// ports of a kind that the updated network cannot have are not kept.
func overlay(stored *App, base, update map[string]any) map[string]any {
	out := maps.Clone(base)
	maps.Copy(out, update)
	if networks, given := update["networks"]; given {
		switch {
		case !hostNetworked(networks) && update["portDefinitions"] == nil:
			delete(out, "portDefinitions")
		case hostNetworked(networks) && update["container"] == nil:
			if c, ok := out["container"].(map[string]any); ok {
				c = maps.Clone(c)
				delete(c, "portMappings")
				out["container"] = c
			}
		}
	}
	dropOldDefaults(out, stored, update)
	if update["cmd"] != nil && update["args"] == nil {
		delete(out, "args")
	}
	if update["args"] != nil && update["cmd"] == nil {
		delete(out, "cmd")
	}
	return out
}

// dropOldDefaults removes strategies from fields that the stored app only has by
// default, where the update makes another default right: an app that gets its
// first exclusive volume must be held when it becomes unreachable.
func dropOldDefaults(fields map[string]any, stored *App, update map[string]any) {
	o := object{s: &shape{}, fields: fields}
	updated := &App{Container: readContainer(o), Env: readEnv(o)}
	translateModuleEnv(&problems{}, updated)
	oldUpgrade, oldUnreachable := defaultStrategies(stored)
	newUpgrade, newUnreachable := defaultStrategies(updated)
	if update["upgradeStrategy"] == nil && oldUpgrade != newUpgrade && stored.Upgrade == oldUpgrade {
		delete(fields, "upgradeStrategy")
	}
	if update["unreachableStrategy"] == nil && oldUnreachable != newUnreachable && stored.Unreachable == oldUnreachable {
		delete(fields, "unreachableStrategy")
	}
}

// build makes the canonical App of fields in canonical form.
func (u *Update) build(fields map[string]any, id ID, stored *App) (*App, error) {
	s := &shape{}
	o, _ := s.root(fields)
	d := readDefinition(o)
	if err := s.err(msgShape); err != nil {
		return nil, err
	}
	d.App.ID = id
	p := s.semantic
	translateModuleEnv(&p, d.App)
	resolveClasses(&p, d.App, u.opts, stored)
	normalise(&p, d, u.opts, stored)
	validate(&p, d, u.opts, stored)
	if err := p.err(msgInvalid); err != nil {
		return nil, err
	}
	return d.App, nil
}
