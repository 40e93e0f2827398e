package app

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Providers of external volumes.
const (
	DVDI = "dvdi"
	CSI  = "csi"
)

const (
	readWrite = "RW"
	readOnly  = "RO"

	driverOption = "dvdi/driver"
	classOption  = "dvdi/class"
	// engineOption is how options begin that speak to the volume engine; only
	// the framework may set them.
	engineOption = "dvdi/dvdi."
)

const (
	labelExpr  = `[a-z0-9](?:[-a-z0-9]*[a-z0-9])?`
	optionExpr = `[A-Za-z0-9](?:[-A-Za-z0-9\._:]*[A-Za-z0-9])?`
)

var (
	labelPattern     = regexp.MustCompile(`^` + labelExpr + `$`)
	optionKeyPattern = regexp.MustCompile(`^` + labelExpr + `/` + optionExpr + `$`)
)

func mustMatch(re *regexp.Regexp) string {
	return "must fully match regular expression '" + re.String() + "'"
}

// ExternalVolumes returns the indices in Container.Volumes of the external
// volumes.
func (a *App) ExternalVolumes() []int {
	return a.volumes(func(v Volume) bool { return v.External != nil })
}

// PersistentVolumes returns the indices in Container.Volumes of the persistent
// volumes.
func (a *App) PersistentVolumes() []int {
	return a.volumes(func(v Volume) bool { return v.Persistent != nil })
}

func (a *App) volumes(want func(Volume) bool) []int {
	if a.Container == nil {
		return nil
	}
	var out []int
	for i, v := range a.Container.Volumes {
		if want(v) {
			out = append(out, i)
		}
	}
	return out
}

// sharesDisk says whether all instances of the app have a persistent volume
// together.
func (a *App) sharesDisk() bool {
	return len(a.volumes(func(v Volume) bool { return v.Persistent != nil && v.Persistent.Shared })) > 0
}

// Resident says whether the app has persistent volumes, which tie each instance
// to its agent.
func (a *App) Resident() bool { return len(a.PersistentVolumes()) > 0 }

// HasExclusiveVolume says whether a volume of the app may have only one holder.
func (a *App) HasExclusiveVolume() bool {
	return len(a.volumes(func(v Volume) bool { return v.External != nil && v.External.Exclusive() })) > 0
}

// hasUnguardedVolume says whether only this framework keeps a second holder off
// an exclusive volume of the app: its class does not say that the backend does.
func (a *App) hasUnguardedVolume() bool {
	return len(a.volumes(func(v Volume) bool {
		e := v.External
		return e != nil && e.Exclusive() && (e.Class == nil || !e.Class.BackendExclusive)
	})) > 0
}

// Exclusive says whether the volume may have only one holder at a time.
func (e *External) Exclusive() bool {
	if e.CSI != nil {
		return e.CSI.exclusive()
	}
	return !e.Shared && !e.anyAgents()
}

// Driver is the volume driver's name.
func (e *External) Driver() string { return e.plainOptions()[driverOption] }

// DriverOptions are the options that the driver gets: those with the prefix
// "dvdi/", without it, except the driver's name and the fence; a Size beats an option "size"
// (contract 3.2). It is nil when there are none.
func (e *External) DriverOptions() map[string]string {
	out := map[string]string{}
	for key, value := range e.plainOptions() {
		if name, ok := strings.CutPrefix(key, "dvdi/"); ok && key != driverOption && key != fenceOption {
			out[name] = strings.TrimSpace(value)
		}
	}
	if e.Size != nil {
		out["size"] = strconv.FormatInt(*e.Size, 10)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// volumeKinds are the members that tell the kinds of volumes apart.
var volumeKinds = []string{"external", "persistent", "secret", "hostPath"}

func readVolume(o object) Volume {
	v := Volume{}
	kinds := slices.DeleteFunc(slices.Clone(volumeKinds), func(k string) bool { return !o.has(k) })
	switch len(kinds) {
	case 0:
		o.s.addf(o.path, "one of 'external', 'persistent', 'secret' and 'hostPath' must be defined on object: %s", o.excerpt())
	case 1:
	default:
		o.s.addf(o.path, "only one of '%s' may be defined", strings.Join(kinds, "' and '"))
	}
	o.require("containerPath")
	v.ContainerPath = o.strLen("containerPath", 1, 0)
	if !o.has("secret") {
		o.require("mode")
		v.Mode = o.enum("mode", "", readOnly, readWrite)
	}
	v.HostPath = o.strLen("hostPath", 1, 0)
	v.Secret = o.strLen("secret", 1, 0)
	if e, ok := o.object("external"); ok {
		v.External = readExternal(e)
	}
	if p, ok := o.object("persistent"); ok {
		v.Persistent = readPersistent(p)
	}
	return v
}

func readExternal(o object) *External {
	e := &External{
		Provider: o.str("provider"),
		Name:     o.str("name"),
		Size:     o.optInt64("size", 0, math.MaxInt64),
		Shared:   o.boolean("shared", false),
	}
	if e.Provider == CSI {
		e.CSI = readCSI(o)
	} else {
		e.Options = o.stringMap("options")
	}
	if !o.has("provider") {
		o.s.semantic.add(o.at("provider"), "not defined")
	}
	switch {
	case !o.has("name"):
		o.s.semantic.add(o.at("name"), "not defined")
	case e.Name == "":
		o.s.semantic.add(o.at("name"), "must not be empty")
	}
	return e
}

func readPersistent(o object) *Persistent {
	o.require("size")
	def := "root"
	if o.has("profileName") {
		def = "mount"
	}
	return &Persistent{
		Type:        o.enum("type", def, "root", "path", "mount"),
		Size:        o.integer("size", 0, math.MinInt64, maxAmount),
		MaxSize:     o.optInt64("maxSize", math.MinInt64, maxAmount),
		ProfileName: o.strLen("profileName", 1, 0),
		Constraints: o.matrix("constraints"),
		Shared:      o.boolean("shared", false),
	}
}

func validateVolumes(p *problems, a *App, opts Options) {
	if a.Container == nil {
		return
	}
	names := map[string]int{}
	for i, v := range a.Container.Volumes {
		path := indexed("/container/volumes", i)
		switch {
		case v.External != nil:
			names[v.External.Name]++
			validateExternal(p, path, a, v, opts)
		case v.Persistent != nil:
			validatePersistent(p, path, a.ID, v)
		case v.Secret != "":
			validateSecretVolume(p, path, a, v, opts)
		}
	}
	validateVolumeNames(p, a, names)
	validateDockerDrivers(p, a)
	validateFence(p, a)
}

// validateDockerDrivers allows a DOCKER container volumes of one driver: Mesos
// has no more than one --volume-driver for it and fails the task otherwise
// (src/docker/docker.cpp, contract 3.2).
func validateDockerDrivers(p *problems, a *App) {
	if a.Container.Type != Docker {
		return
	}
	first := ""
	for _, i := range a.ExternalVolumes() {
		driver := a.Container.Volumes[i].External.Driver()
		if first == "" {
			first = driver
		}
		if driver != "" && driver != first {
			p.addf("/container/volumes", "must be of one driver in a DOCKER container, which Mesos allows no more, not of %s and %s", first, driver)
			return
		}
	}
}

func validateVolumeNames(p *problems, a *App, names map[string]int) {
	repeated := false
	for _, i := range a.ExternalVolumes() {
		e := a.Container.Volumes[i].External
		if names[e.Name] < 2 || e.Name == "" {
			continue
		}
		repeated = true
		names[e.Name] = 0
		if e.Provider == DVDI {
			p.addf("/", "Requested DVDI volume '%s' is declared more than once within app %s", e.Name, a.ID)
		}
	}
	if repeated {
		p.add("/container/volumes", "Volume names must be unique")
	}
}

func validateExternal(p *problems, path string, a *App, v Volume, opts Options) {
	if opts.NoExternalVolumes {
		p.add(path, "Feature external_volumes is not enabled. Enable with --enable_features external_volumes)")
	}
	e := v.External
	if e.Size != nil && *e.Size == 0 {
		p.add(path+"/external/size", "got 0, expected more than 0")
	}
	switch e.Provider {
	case DVDI:
		validateDVDI(p, path, a, v)
	case CSI:
		validateCSI(p, path, v, opts)
	case "": // noted when read
	default:
		p.add(path+"/external/provider", "is unknown provider")
	}
}

func validateDVDI(p *problems, path string, a *App, v Volume) {
	e := v.External
	if e.PerInstance() && e.Shared {
		p.add(path+"/external/shared", "must be false: each instance has a volume of its own by the name "+e.Name)
	}
	validateDVDIOptions(p, path+"/external/options", e)
	if v.ContainerPath == "." || v.ContainerPath == ".." {
		p.add(path+"/containerPath", "can not be one of (.,..)")
	}
	if a.Container.Type == Mesos {
		if v.Mode != readWrite && e.Access() != AccessManyReaders {
			p.add(path+"/mode", "does not equal RW")
		}
		return
	}
	for key := range e.Options {
		if key != driverOption && key != classOption {
			p.add(path+"/external/options", "must only contain dvdi/driver")
			break
		}
	}
	if e.Size != nil {
		p.add(path+"/external/size", "must be undefined for Docker containers")
	}
	if e.Exclusive() {
		p.add(path+"/external", "an exclusive volume can not be used in a DOCKER container: Docker mounts it past the agent's volume isolator, "+
			"so that a second writer could not be kept away; run the image in a MESOS container, or set \"shared\": true if the volume may have several writers")
	}
}

func validateDVDIOptions(p *problems, path string, e *External) {
	keys := make([]string, 0, len(e.Options))
	for k := range e.Options {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	driver, given := e.Options[driverOption]
	switch {
	case e.Class != nil:
	case !given:
		p.add(path+`("dvdi/driver")`, "not defined")
	case !labelPattern.MatchString(driver):
		p.add(path+`("dvdi/driver")`, mustMatch(labelPattern))
	}
	for i, k := range keys {
		if !optionKeyPattern.MatchString(k) {
			p.add(indexed(path+"/keys", i), mustMatch(optionKeyPattern))
		}
		if strings.HasPrefix(k, engineOption) {
			p.addf(path+`("`+k+`")`, "is reserved for the volume engine; remove the option")
		}
	}
	if driver == "rexray" {
		validateRexRay(p, path, e.Options)
	}
}

// validateRexRay holds the rules that Marathon has for the driver named rexray.
func validateRexRay(p *problems, path string, options map[string]string) {
	for _, key := range []string{"dvdi/volumetype", "dvdi/newfstype"} {
		if v, ok := options[key]; ok && !labelPattern.MatchString(v) {
			p.add(path+`/"`+key+`"`, mustMatch(labelPattern))
		}
	}
	if v, ok := options["dvdi/iops"]; ok {
		if n, err := strconv.ParseInt(v, 10, 64); err != nil || n <= 0 {
			p.addf(path+`/"dvdi/iops"`, "Expected a valid, positive integer instead of %s", v)
		}
	}
	if v, ok := options["dvdi/overwritefs"]; ok && !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
		p.add(path+`/"dvdi/overwritefs"`, "Expected a valid boolean")
	}
}

// maxPersistencePath is what <safe path>#<container path> may have of the 255
// bytes of a persistence id, which ends with # and a UUID.
const maxPersistencePath = 255 - len("#00000000-0000-0000-0000-000000000000")

func validatePersistent(p *problems, path string, id ID, v Volume) {
	pv := v.Persistent
	if pv.Size <= 0 {
		p.addf(path+"/persistent/size", "got %d, expected more than 0", pv.Size)
	}
	if pv.MaxSize != nil {
		if pv.Type != "mount" {
			p.add(path+"/persistent", "Only mount volumes can have maxSize")
		}
		if *pv.MaxSize <= pv.Size {
			p.add(path+"/persistent", "Max size must be larger than size")
		}
	}
	if pv.Type == "root" && len(pv.Constraints) > 0 {
		p.add(path+"/persistent", "Constraints on root volumes are not supported")
	}
	for i, c := range pv.Constraints {
		if problem := pathConstraintProblem(c); problem != "" {
			p.add(indexed(path+"/persistent/constraints", i), problem)
		}
	}
	switch {
	case v.ContainerPath == "." || v.ContainerPath == "..":
		p.add(path+"/containerPath", "can not be one of (.,..)")
	case strings.Contains(v.ContainerPath, "/"):
		p.add(path+"/containerPath", `value must not contain "/"`)
	case strings.ContainsFunc(v.ContainerPath, func(r rune) bool { return r == '\\' || unicode.IsControl(r) }):
		p.add(path+"/containerPath", "must not contain backslashes and control characters, since Mesos uses it in the volume's id")
	case len(id.SafePath())+len("#")+len(v.ContainerPath) > maxPersistencePath:
		p.addf(path+"/containerPath", "must be shorter: with the app's id it has more than %d characters, which Mesos uses in the volume's id", maxPersistencePath)
	}
	if v.Mode != readWrite {
		p.add(path+"/mode", "does not equal RW")
	}
}

// pathConstraintProblem says what is wrong with a constraint of a persistent
// volume, "" if nothing.
func pathConstraintProblem(c []string) string {
	switch {
	case len(c) < 2:
		return "Missing field and operator"
	case c[0] != "path" || len(c) != 3:
		return "Unsupported constraint " + strings.Join(c, ",")
	}
	switch strings.ToUpper(c[1]) {
	case "LIKE", "UNLIKE":
		if _, err := regexp.Compile(c[2]); err != nil {
			return "Invalid regular expression"
		}
		return ""
	case "UNIQUE", "CLUSTER", "GROUP_BY", "MAX_PER", "IS":
		return "Operator must be one of LIKE, UNLIKE"
	}
	return "unknown constraint operator " + c[1]
}

func validateSecretVolume(p *problems, path string, a *App, v Volume, opts Options) {
	if !opts.Secrets {
		p.add(path, "Feature secrets is not enabled. Enable with --enable_features secrets)")
	}
	if _, ok := a.Secrets[v.Secret]; !ok {
		p.add(path+"/secret", "volume.secret must refer to an existing secret")
	}
}
