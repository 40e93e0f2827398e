package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// Policy is what an agent's operator allows. The zero value allows everything
// but what harms data (see DefaultForbiddenOnExisting).
type Policy struct {
	// ExplicitCreate forbids creating volumes by mounting them.
	ExplicitCreate bool `yaml:"explicitCreate"`
	// AllowedDrivers, if not empty, are the only ones.
	AllowedDrivers []string `yaml:"allowedDrivers"`
	// Defaults apply to drivers for what Drivers does not say of them.
	Defaults DriverRules `yaml:"defaults"`
	// Drivers are rules by driver name.
	Drivers map[string]DriverRules `yaml:"drivers"`
}

// DriverRules are the rules for one driver.
type DriverRules struct {
	ExplicitCreate *bool `yaml:"explicitCreate"`
	// AllowedOptions, if set, are the only keys; ForbiddenOptions never are. Keys
	// are compared without case.
	AllowedOptions   []string `yaml:"allowedOptions"`
	ForbiddenOptions []string `yaml:"forbiddenOptions"`
	// ForbiddenOnExisting are keys that may be given with a volume that is about
	// to be created only. Nil: DefaultForbiddenOnExisting.
	ForbiddenOnExisting []string `yaml:"forbiddenOnExisting"`
	// DefaultOptions are added where the caller gives none.
	DefaultOptions map[string]string `yaml:"defaultOptions"`
	// SecretOptions are keys whose values stay out of records, logs and errors.
	SecretOptions []string `yaml:"secretOptions"`
	// OneCallAtATime keeps calls to the driver from overlapping, for drivers that
	// lock themselves up otherwise. Drivers named rclone get that without being
	// told, unless ConcurrentCalls: rclone 1.60, which Debian has, stops for ever
	// when mounts overlap.
	OneCallAtATime  bool `yaml:"oneCallAtATime"`
	ConcurrentCalls bool `yaml:"concurrentCalls"`
	// Timeouts of single calls.
	Timeouts TimeoutRules `yaml:"timeouts"`
	// MountPoint says what mount paths may be: "auto" (learned), "required" (a
	// mount point) or "directory" (anything).
	MountPoint string `yaml:"mountpoint"`
	// Root, if set, is the directory in which every mount path must be.
	Root string `yaml:"root"`
	// Chown gives the volume's root directory to "uid:gid" at each mount,
	// without touching what is in it.
	Chown string `yaml:"chown"`
}

// TimeoutRules are Timeouts in a policy file.
type TimeoutRules struct {
	Create  time.Duration `yaml:"create"`
	Remove  time.Duration `yaml:"remove"`
	Mount   time.Duration `yaml:"mount"`
	Unmount time.Duration `yaml:"unmount"`
	Query   time.Duration `yaml:"query"`
	Margin  time.Duration `yaml:"margin"`
}

// DefaultForbiddenOnExisting are options that reformat: given with every mount,
// as app definitions do, they would destroy what the volume holds.
func DefaultForbiddenOnExisting() []string { return []string{"overwritefs"} }

// The values of DriverRules.MountPoint.
const (
	mountPointAuto      = "auto"
	mountPointRequired  = "required"
	mountPointDirectory = "directory"
)

// DefaultPolicyFile is where programs look for the policy unless told otherwise.
const DefaultPolicyFile = "/etc/dvdi/dvdcli.yaml"

// maxPolicy bounds the size of a policy file.
const maxPolicy = 1 << 20

// LoadPolicy reads a policy file. Where nothing is at DefaultPolicyFile there is
// no policy: nil without error; /dev/null says so explicitly. Anything else is
// volume.BadPolicy: a file named otherwise that is missing, a link to nowhere,
// what is no regular file, unknown keys.
func LoadPolicy(path string) (*Policy, error) { return loadPolicy(path, path == DefaultPolicyFile) }

func loadPolicy(path string, optional bool) (*Policy, error) {
	if path == os.DevNull {
		return nil, nil
	}
	if _, err := os.Lstat(path); optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	data, err := readPolicy(path)
	var p *Policy
	if err == nil {
		p, err = ParsePolicy(data)
	}
	if err != nil {
		return nil, &volume.Error{Kind: volume.BadPolicy, Op: "read the policy", Message: path, Err: err,
			Hint: "correct the file; until then nothing is mounted or created, and unmounting works"}
	}
	return p, nil
}

// readPolicy never waits: opening a FIFO without O_NONBLOCK would.
func readPolicy(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err == nil && len(data) > maxPolicy {
		err = fmt.Errorf("it is larger than %d bytes", maxPolicy)
	}
	return data, err
}

// ParsePolicy reads the text of a policy file.
func ParsePolicy(data []byte) (*Policy, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var p Policy
	if err := dec.Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := dec.Decode(new(Policy)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	if err := p.Defaults.check("defaults"); err != nil {
		return nil, err
	}
	for name, rules := range p.Drivers {
		if err := rules.check("drivers." + name); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

func (r DriverRules) check(at string) error {
	switch r.MountPoint {
	case "", mountPointAuto, mountPointRequired, mountPointDirectory:
	default:
		return fmt.Errorf("%s.mountpoint: %q is none of auto, required, directory", at, r.MountPoint)
	}
	if r.Root != "" && !filepath.IsAbs(r.Root) {
		return fmt.Errorf("%s.root: %q is not absolute", at, r.Root)
	}
	if r.Chown != "" {
		if _, _, err := parseOwner(r.Chown); err != nil {
			return fmt.Errorf("%s.chown: %w", at, err)
		}
	}
	t := r.Timeouts
	for _, d := range []time.Duration{t.Create, t.Remove, t.Mount, t.Unmount, t.Query, t.Margin} {
		if d < 0 {
			return fmt.Errorf("%s.timeouts: %s is negative", at, d)
		}
	}
	return nil
}

func parseOwner(s string) (uid, gid int, err error) {
	u, g, ok := strings.Cut(s, ":")
	if !ok {
		return 0, 0, fmt.Errorf("%q is not uid:gid", s)
	}
	if uid, err = strconv.Atoi(u); err != nil || uid < 0 {
		return 0, 0, fmt.Errorf("%q is not a numeric user id", u)
	}
	if gid, err = strconv.Atoi(g); err != nil || gid < 0 {
		return 0, 0, fmt.Errorf("%q is not a numeric group id", g)
	}
	return uid, gid, nil
}

// locksUp is the driver that locks itself up when calls to it overlap.
const locksUp = "rclone"

// rulesFor merges a driver's rules with the defaults. canonical makes the names
// in the policy comparable with driver: an operator may call it otherwise.
func (p *Policy) rulesFor(driver string, canonical func(string) string) DriverRules {
	var r DriverRules
	for _, name := range slices.Sorted(maps.Keys(p.Drivers)) {
		if canonical(name) == driver {
			r = p.Drivers[name]
		}
	}
	d := p.Defaults
	if r.ExplicitCreate == nil {
		r.ExplicitCreate = d.ExplicitCreate
	}
	if r.AllowedOptions == nil {
		r.AllowedOptions = d.AllowedOptions
	}
	if r.ForbiddenOptions == nil {
		r.ForbiddenOptions = d.ForbiddenOptions
	}
	if r.ForbiddenOnExisting == nil {
		r.ForbiddenOnExisting = d.ForbiddenOnExisting
	}
	if r.ForbiddenOnExisting == nil {
		r.ForbiddenOnExisting = DefaultForbiddenOnExisting()
	}
	if r.DefaultOptions == nil {
		r.DefaultOptions = d.DefaultOptions
	}
	r.OneCallAtATime = r.OneCallAtATime || d.OneCallAtATime || driver == locksUp && !r.ConcurrentCalls
	r.SecretOptions = slices.Concat(r.SecretOptions, d.SecretOptions)
	r.Timeouts = r.Timeouts.over(d.Timeouts)
	for _, s := range []struct{ to, from *string }{{&r.MountPoint, &d.MountPoint}, {&r.Root, &d.Root}, {&r.Chown, &d.Chown}} {
		if *s.to == "" {
			*s.to = *s.from
		}
	}
	if r.MountPoint == "" {
		r.MountPoint = mountPointAuto
	}
	return r
}

func (t TimeoutRules) over(base TimeoutRules) TimeoutRules {
	return TimeoutRules(onlyRules(t.timeouts().over(base.timeouts())))
}

func (t TimeoutRules) timeouts() Timeouts {
	return Timeouts{Create: t.Create, Remove: t.Remove, Mount: t.Mount, Unmount: t.Unmount, Query: t.Query, Margin: t.Margin}
}

func onlyRules(t Timeouts) TimeoutRules {
	return TimeoutRules{Create: t.Create, Remove: t.Remove, Mount: t.Mount, Unmount: t.Unmount, Query: t.Query, Margin: t.Margin}
}

func (p *Policy) explicitCreate(rules DriverRules) bool {
	if rules.ExplicitCreate != nil {
		return *rules.ExplicitCreate
	}
	return p.ExplicitCreate
}

// AllowsDriver returns nil if volumes of a driver, by any of its names, may be
// mounted, and else a volume.Error of kind Forbidden that says why not. Nil, as
// LoadPolicy returns it where there is no policy, allows all.
func (p *Policy) AllowsDriver(drivers volume.Drivers, name string) error {
	if p == nil {
		return nil
	}
	canonical := canonicalBy(drivers)
	return p.allowsDriver(canonical(name), canonical)
}

func (p *Policy) allowsDriver(driver string, canonical func(string) string) error {
	named := func(name string) bool { return canonical(name) == driver }
	if len(p.AllowedDrivers) > 0 && !slices.ContainsFunc(p.AllowedDrivers, named) {
		return forbidden("driver is not among " + strings.Join(p.AllowedDrivers, ", "))
	}
	return nil
}

// allows checks driver and options before anything is asked of the driver.
func (p *Policy) allows(driver string, canonical func(string) string, options map[string]string) error {
	if err := p.allowsDriver(driver, canonical); err != nil {
		return err
	}
	rules := p.rulesFor(driver, canonical)
	for key := range options {
		if hasFold(rules.ForbiddenOptions, key) {
			return forbidden(fmt.Sprintf("option %q is forbidden", key))
		}
		if rules.AllowedOptions != nil && !hasFold(rules.AllowedOptions, key) {
			return forbidden(fmt.Sprintf("option %q is not among %s", key, strings.Join(rules.AllowedOptions, ", ")))
		}
	}
	return nil
}

// allowsOnExisting checks the options of a mount of a volume that exists.
func (r DriverRules) allowsOnExisting(options map[string]string) error {
	for key, value := range options {
		if hasFold(r.ForbiddenOnExisting, key) && !strings.EqualFold(value, "false") {
			return &volume.Error{Kind: volume.Forbidden, Message: fmt.Sprintf("option %q on a volume that exists would endanger its data", key),
				Hint: "leave the option out, or give --force, or allow it with forbiddenOnExisting in the policy"}
		}
	}
	return nil
}

func (r DriverRules) isSecret(key string) bool { return hasFold(r.SecretOptions, key) }

func hasFold(list []string, key string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, key) })
}

func forbidden(why string) error {
	return &volume.Error{Kind: volume.Forbidden, Message: why, Hint: "see the policy file of this agent"}
}

// withDefaults adds the policy's default options.
func (r DriverRules) withDefaults(options map[string]string) map[string]string {
	out := make(map[string]string, len(options)+len(r.DefaultOptions))
	for k, v := range r.DefaultOptions {
		out[k] = v
	}
	for k, v := range options {
		out[k] = v
	}
	return out
}
