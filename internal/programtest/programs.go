// Package programtest builds the programs that a package of tests runs.
package programtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// module is the path that the programs' packages begin with.
const module = "github.com/mesos-dvdi/dvdi/"

// Program is a program under test.
type Program struct {
	// Name is what its file is called.
	Name string
	// Package is its package, relative to the module.
	Package string
	// Flags are further flags of go build.
	Flags []string
}

// Run builds the programs into a directory of its own, tells use which one, and
// runs the tests. It returns the status for os.Exit: not 0 if a program cannot be
// built, a test fails or goroutines are left. The directory is removed at the end.
func Run(m *testing.M, use func(dir string), programs ...Program) (status int) {
	dir, err := os.MkdirTemp("", "dvdi-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}()
	for _, p := range programs {
		if err := p.build(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	use(dir)
	if status = m.Run(); status != 0 {
		return status
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (p Program) build(dir string) error {
	args := append([]string{"build", "-o", filepath.Join(dir, p.Name)}, p.Flags...)
	if out, err := exec.Command("go", append(args, module+p.Package)...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", p.Name, err, out)
	}
	return nil
}
