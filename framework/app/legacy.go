package app

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// legacy is what a definition says in deprecated fields.
type legacy struct {
	uris          []string
	ports         []int
	dockerNetwork string
	dockerPorts   []any // JSON of container.docker.portMappings
	ip            *ipAddress
}

type ipAddress struct {
	network string
	labels  map[string]string
	ports   []any // JSON of port mappings made from discovery.ports
}

// readLegacy reads the deprecated fields for their shape.
func readLegacy(o object) legacy {
	l := legacy{uris: o.strings("uris")}
	for i, v := range o.list("ports") {
		l.ports = append(l.ports, int(o.s.integerAt(indexed(o.at("ports"), i), v, 0, maxPort)))
	}
	if d, ok := dockerOf(o); ok {
		l.dockerNetwork = d.enum("network", "", "BRIDGE", "HOST", "NONE", "USER")
		objects(d, "portMappings", readPortMapping)
		l.dockerPorts = d.list("portMappings")
	}
	if ip, ok := o.object("ipAddress"); ok {
		l.ip = readIPAddress(ip)
	}
	return l
}

func dockerOf(o object) (object, bool) {
	c, ok := o.fields["container"].(map[string]any)
	if !ok {
		return object{}, false
	}
	d, ok := c["docker"].(map[string]any)
	return object{s: o.s, path: o.at("container") + "/docker", fields: d}, ok
}

func readIPAddress(o object) *ipAddress {
	o.strings("groups") // read by no one since Mesos lost network groups
	ip := &ipAddress{network: o.str("networkName"), labels: o.stringMap("labels")}
	d, ok := o.object("discovery")
	if !ok {
		return ip
	}
	for _, m := range objects(d, "ports", func(p object) map[string]any {
		p.require("number")
		p.require("name")
		out := map[string]any{
			"containerPort": number(int(p.integer("number", 0, 0, maxPort))),
			"protocol":      readPortProtocol(p),
			"labels":        tree(p.stringMap("labels")),
		}
		if name := p.pattern("name", namePattern); name != "" {
			out["name"] = name
		}
		return out
	}) {
		ip.ports = append(ip.ports, m)
	}
	return ip
}

func number(n int) json.Number { return json.Number(strconv.Itoa(n)) }

func tree(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// extracted are the suffixes of archives that "uris" unpacked.
var extracted = []string{".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".zip", ".tar", ".gz"}

// translateLegacy returns fields with the deprecated ones replaced by canonical
// ones, and adds to p where old and new contradict each other (contract 2.5).
// The input is not changed.
func translateLegacy(p *problems, fields map[string]any, l legacy) map[string]any {
	t := &translator{p: p, l: l, out: maps.Clone(fields)}
	if c, ok := fields["container"].(map[string]any); ok {
		t.container = maps.Clone(c)
		t.out["container"] = t.container
	}
	t.fetch()
	t.dockerSection()
	t.network()
	t.discovery()
	t.ports()
	for _, key := range []string{"uris", "ports", "ipAddress"} {
		delete(t.out, key)
	}
	return t.out
}

type translator struct {
	p         *problems
	l         legacy
	out       map[string]any
	container map[string]any // nil if there is none
}

func (t *translator) fetch() {
	if len(t.l.uris) == 0 {
		return
	}
	if f, _ := t.out["fetch"].([]any); len(f) > 0 {
		t.p.add("/uris", "may not be set in conjunction with fetch")
		return
	}
	var fetch []any
	for _, uri := range t.l.uris {
		archive := slices.ContainsFunc(extracted, func(suffix string) bool { return strings.HasSuffix(uri, suffix) })
		fetch = append(fetch, map[string]any{"uri": uri, "extract": archive})
	}
	t.out["fetch"] = fetch
}

// isMesos says whether the container, as given, is of type MESOS.
func (t *translator) isMesos() bool {
	s, _ := t.container["type"].(string)
	return strings.EqualFold(s, Mesos)
}

// dockerSection moves container.docker.portMappings up and drops the network.
func (t *translator) dockerSection() {
	d, ok := t.container["docker"].(map[string]any)
	if !ok {
		return
	}
	d = maps.Clone(d)
	t.container["docker"] = d
	if t.isMesos() {
		if t.l.dockerNetwork != "" {
			t.p.add("/container/docker/network", "must be empty")
		}
		if len(t.l.dockerPorts) > 0 {
			t.p.add("/container/docker/portMappings", "must be empty")
		}
	}
	if t.l.dockerPorts != nil {
		if own, _ := t.container["portMappings"].([]any); len(own) == 0 {
			t.container["portMappings"] = t.l.dockerPorts
		} else if len(t.l.dockerPorts) > 0 {
			t.p.add("/container/docker/portMappings", "cannot specify both portMappings and docker.portMappings")
		}
	}
	delete(d, "network")
	delete(d, "portMappings")
}

func (t *translator) network() {
	networks, _ := t.out["networks"].([]any)
	if t.l.dockerNetwork != "" && len(networks) > 0 {
		t.p.add("/", "must not specify both container.docker.network and networks")
		return
	}
	if t.l.ip != nil && len(networks) > 0 {
		t.p.add("/", "must not specify both networks and ipAddress")
		return
	}
	network := t.oldNetwork()
	if network == nil {
		return
	}
	if ip := t.l.ip; ip != nil && network["mode"] != HostNetwork {
		network["labels"] = tree(ip.labels)
		if network["mode"] == ContainerNetwork && ip.network != "" {
			network["name"] = ip.network
		}
	}
	t.out["networks"] = []any{network}
	if network["mode"] == HostNetwork && t.container != nil {
		// Old definitions carried port mappings that host networking ignored.
		delete(t.container, "portMappings")
	}
}

// oldNetwork is the one network that the deprecated fields ask for, nil if
// none.
func (t *translator) oldNetwork() map[string]any {
	switch t.l.dockerNetwork {
	case "HOST":
		return map[string]any{"mode": HostNetwork}
	case "BRIDGE":
		return map[string]any{"mode": BridgeNetwork}
	case "USER":
		return map[string]any{"mode": ContainerNetwork}
	case "NONE":
		t.p.add("/container/docker/network", "unsupported docker network type NONE; choose a network by networks")
		return nil
	}
	switch {
	case t.l.ip == nil:
		return nil
	case t.l.ip.network == mesosBridge:
		return map[string]any{"mode": BridgeNetwork}
	}
	return map[string]any{"mode": ContainerNetwork}
}

func (t *translator) discovery() {
	if t.l.ip == nil {
		return
	}
	if t.container == nil {
		t.container = map[string]any{"type": Mesos}
		t.out["container"] = t.container
	}
	if len(t.l.ip.ports) == 0 {
		return
	}
	own, _ := t.container["portMappings"].([]any)
	switch {
	case !t.isMesos():
		t.p.add("/ipAddress", "ipAddress/discovery is not allowed for Docker containers")
	case len(own) > 0:
		t.p.add("/", "container.portMappings and ipAddress.discovery.ports must not both be set")
	default:
		t.container["portMappings"] = t.l.ip.ports
	}
}

// ports turns the old list of numbers into port definitions with host
// networking, and into the service ports of the port mappings otherwise.
func (t *translator) ports() {
	t.oldDefinitions()
	if _, given := t.out["ports"]; !given {
		return
	}
	seen := map[int]bool{}
	for _, n := range t.l.ports {
		if n != 0 && seen[n] {
			t.p.add("/", "ports must be unique")
			break
		}
		seen[n] = true
	}
	if defs := asList(t.out["portDefinitions"]); len(defs) > 0 {
		if len(t.l.ports) > 0 && !slices.Equal(t.l.ports, portsOf(defs)) {
			t.p.add("/", "cannot specify both ports and port definitions")
		}
		return
	}
	if hostNetworked(t.out["networks"]) {
		defs := []any{}
		for _, n := range t.l.ports {
			defs = append(defs, map[string]any{"port": number(n)})
		}
		t.out["portDefinitions"] = defs
		return
	}
	t.servicePorts()
}

// oldDefinitions takes the port definitions of an app that names its network, other
// than the host's, in deprecated fields for a list of ports: Marathon wrote both for
// such apps before it had networks.
func (t *translator) oldDefinitions() {
	defs := asList(t.out["portDefinitions"])
	if len(defs) == 0 || t.l.dockerNetwork == "" && t.l.ip == nil || hostNetworked(t.out["networks"]) {
		return
	}
	ports := portsOf(defs)
	if len(t.l.ports) > 0 && !slices.Equal(t.l.ports, ports) {
		return // it is told about
	}
	t.l.ports, t.out["ports"] = ports, defs
	delete(t.out, "portDefinitions")
}

// portsOf are the numbers in the JSON of port definitions, whose shape is right.
func portsOf(defs []any) []int {
	out := make([]int, len(defs))
	for i, v := range defs {
		m, _ := v.(map[string]any)
		if n, ok := m["port"].(json.Number); ok {
			port, _ := n.Float64() // it was read as a port already
			out[i] = int(port)
		}
	}
	return out
}

func (t *translator) servicePorts() {
	own, _ := t.container["portMappings"].([]any)
	mappings := make([]any, 0, len(own))
	for i, v := range own {
		m, ok := v.(map[string]any)
		if ok && m["servicePort"] == nil && i < len(t.l.ports) {
			m = maps.Clone(m)
			m["servicePort"] = number(t.l.ports[i])
		}
		mappings = append(mappings, m)
	}
	for i := len(own); i < len(t.l.ports); i++ {
		mappings = append(mappings, map[string]any{"servicePort": number(t.l.ports[i])})
	}
	if len(mappings) == 0 {
		return
	}
	if t.container == nil {
		t.container = map[string]any{"type": Mesos}
		t.out["container"] = t.container
	}
	t.container["portMappings"] = mappings
}

// hostNetworked tells from the JSON of networks whether it means the host's.
func hostNetworked(networks any) bool {
	for _, v := range asList(networks) {
		if m, ok := v.(map[string]any); ok {
			mode, _ := m["mode"].(string)
			if !strings.EqualFold(mode, HostNetwork) {
				return false
			}
		}
	}
	return true
}

func asList(v any) []any {
	l, _ := v.([]any)
	return l
}
