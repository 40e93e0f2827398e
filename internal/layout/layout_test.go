// Package layout_test holds what is true of the repository as a whole: which
// package may import which.
package layout_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/mesos-dvdi/dvdi"
	root   = "../.." // of the module, seen from here
)

// rule says what the packages of a tree may import of this module besides their
// own tree.
type rule struct {
	tree string
	may  []string // trees, or single packages where they begin with "="
	// onlyStandard forbids other modules.
	onlyStandard bool
}

// rules hold the direction of imports: a main, its own tree, then scheduler or
// internal/volume, which know nothing above them. The rule of the longest tree
// applies. The framework and the bridge share no code but the client of the
// bridge's API.
var rules = []rule{
	{tree: "scheduler", onlyStandard: true},
	{tree: "=internal/volume", onlyStandard: true},
	{tree: "internal/volume"},
	{tree: "dvdcli", may: []string{"internal/volume"}},
	{tree: "isolator-bridge", may: []string{"internal/volume"}},
	{tree: "isolator-bridge/client", may: []string{"=internal/volume/inputfile"}},
	{tree: "framework", may: []string{"scheduler", "isolator-bridge/client", "internal/volume"}},
	// The binary brings the embedded Mesos along for --master=embedded.
	{tree: "=framework", may: []string{"scheduler", "framework", "internal/embeddedmesos", "=internal/volume/inputfile"}},
	{tree: "framework/detect/zktest", may: []string{"internal/freeport"}},
	{tree: "internal/freeport", onlyStandard: true},
	{tree: "internal/bubbletest", onlyStandard: true},
	{tree: "internal/embeddedmesos", may: []string{"internal/freeport"}},
	{tree: "internal/devcluster", may: []string{"internal/embeddedmesos", "internal/freeport"}},
	{tree: "internal/layout"},
	{tree: "internal/programtest"},
	{tree: "internal/e2e", may: []string{"internal/devcluster", "internal/embeddedmesos"}},
	{tree: "internal/hatest", may: []string{"internal/devcluster", "internal/embeddedmesos", "framework/detect/zktest"}},
	{tree: "examples", may: []string{"internal/devcluster", "internal/embeddedmesos"}},
}

// wireTypes are the modules whose types are Mesos' own; seers are the only trees
// that import them.
var (
	wireTypes = []string{"github.com/mesos/mesos-go", "github.com/gogo/protobuf"}
	seers     = []string{"framework/mesos", "internal/embeddedmesos"}
)

// bubbles is the only package that imports testing/synctest, since it alone knows
// how to do so beside the race detector.
const bubbles = "internal/bubbletest"

// withoutMesos are the programs that must not carry any of Mesos, not even
// through other packages: they run on every agent.
var withoutMesos = []string{"dvdcli", "isolator-bridge"}

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

func TestImportsGoOneWay(t *testing.T) {
	readSources(t)
	packages := list(t)
	if len(packages) < 10 {
		t.Fatalf("go list found only %d packages", len(packages))
	}
	for _, p := range packages {
		for _, problem := range check(p) {
			t.Error(problem)
		}
	}
}

// readSources reads the directories, which ties go test's cached result to
// them: what go list reads is not known to it.
func readSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// list lists all packages of the module.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if under(p.ImportPath, module) && p.ImportPath != module {
			all = append(all, p)
		}
	}
}

// check names each import of a package that is against the rules.
func check(p pkg) []string {
	name := strings.TrimPrefix(p.ImportPath, module+"/")
	r, found := ruleFor(name)
	if !found {
		return []string{fmt.Sprintf("%s is in no known tree: say in this test what it may import", name)}
	}
	var problems []string
	for _, imported := range p.Imports {
		inside, ours := strings.CutPrefix(imported, module+"/")
		switch {
		case ours && !r.allows(inside):
			problems = append(problems, fmt.Sprintf("%s must not import %s", name, inside))
		case !ours && r.onlyStandard && !standard(imported):
			problems = append(problems, fmt.Sprintf("%s may import only the standard library, not %s", name, imported))
		}
	}
	isSeer := slices.ContainsFunc(seers, func(s string) bool { return under(name, s) })
	for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
		if isWire(imported) && !isSeer {
			problems = append(problems, fmt.Sprintf("%s must not see Mesos' wire types (%s)", name, imported))
		}
		if imported == "testing/synctest" && name != bubbles {
			problems = append(problems, fmt.Sprintf("%s must not import %s, but %s", name, imported, bubbles))
		}
	}
	if slices.ContainsFunc(withoutMesos, func(m string) bool { return under(name, m) }) {
		for _, d := range p.Deps {
			if isWire(d) {
				problems = append(problems, fmt.Sprintf("%s must not carry Mesos, it reaches %s", name, d))
			}
		}
	}
	return problems
}

// ruleFor finds the rule of the longest tree that holds a package.
func ruleFor(name string) (best rule, found bool) {
	for _, r := range rules {
		if r.holds(name) && (!found || len(r.tree) > len(best.tree)) {
			best, found = r, true
		}
	}
	return best, found
}

func (r rule) holds(name string) bool { return matches(name, r.tree) }

func (r rule) allows(name string) bool {
	return r.holds(name) || slices.ContainsFunc(r.may, func(tree string) bool { return matches(name, tree) })
}

// matches tells whether a package is in a tree, or is the one named with "=".
func matches(name, tree string) bool {
	if single, ok := strings.CutPrefix(tree, "="); ok {
		return name == single
	}
	return under(name, tree)
}

func under(name, tree string) bool { return name == tree || strings.HasPrefix(name, tree+"/") }

func isWire(path string) bool {
	return slices.ContainsFunc(wireTypes, func(w string) bool { return under(path, w) })
}

// standard tells whether a package belongs to the standard library: the first
// element of its path has no dot.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func TestForbiddenImportsAreFound(t *testing.T) {
	const mesosGo = "github.com/mesos/mesos-go/api/v1/lib"
	for _, test := range []struct {
		name     string
		p        pkg
		problems int
	}{
		{"decision with a library", pkg{ImportPath: "scheduler/placement", Imports: []string{"sort", "go.uber.org/zap"}}, 1},
		{"decision that knows the framework", pkg{ImportPath: "scheduler", Imports: []string{module + "/framework/core"}}, 1},
		{"decision in its own tree", pkg{ImportPath: "scheduler", Imports: []string{module + "/scheduler/resource", "net/http"}}, 0},
		{"domain with I/O of its own tree", pkg{ImportPath: "internal/volume", Imports: []string{module + "/internal/volume/engine"}}, 1},
		{"engine with the domain", pkg{ImportPath: "internal/volume/engine", Imports: []string{module + "/internal/volume", "go.uber.org/zap"}}, 0},
		{"bridge with the framework", pkg{ImportPath: "isolator-bridge/server", Imports: []string{module + "/framework/app"}}, 1},
		{"framework with the bridge", pkg{ImportPath: "framework/core", Imports: []string{module + "/isolator-bridge/server"}}, 1},
		{"framework with the bridge's client", pkg{ImportPath: "framework/core", Imports: []string{module + "/isolator-bridge/client"}}, 0},
		{"core with wire types", pkg{ImportPath: "framework/core", Imports: []string{mesosGo}}, 1},
		{"test of the core with wire types", pkg{ImportPath: "framework/core", XTestImports: []string{mesosGo}}, 1},
		{"connection with wire types", pkg{ImportPath: "framework/mesos", Imports: []string{mesosGo}}, 0},
		{"core with the embedded Mesos", pkg{ImportPath: "framework/core", Imports: []string{module + "/internal/embeddedmesos"}}, 1},
		{"the binary with the embedded Mesos", pkg{ImportPath: "framework", Imports: []string{module + "/internal/embeddedmesos", module + "/framework/core"}}, 0},
		{"embedded Mesos with the framework", pkg{ImportPath: "internal/embeddedmesos/master", Imports: []string{module + "/framework/app"}}, 1},
		{"dvdcli with Mesos far below", pkg{ImportPath: "dvdcli", Deps: []string{"fmt", mesosGo}}, 1},
		{"bubble without the package that makes them", pkg{ImportPath: "scheduler", TestImports: []string{"testing/synctest"}}, 1},
		{"the package that makes bubbles", pkg{ImportPath: "internal/bubbletest", Imports: []string{"testing/synctest"}}, 0},
		{"new tree", pkg{ImportPath: "other/thing"}, 1},
	} {
		test.p.ImportPath = module + "/" + test.p.ImportPath
		if got := check(test.p); len(got) != test.problems {
			t.Errorf("%s: %q, want %d problems", test.name, got, test.problems)
		}
	}
}
