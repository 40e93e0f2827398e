package devcluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// ownerEnv makes the test binary start a process of the cluster, print its pid
// and wait to be killed.
const ownerEnv = "DEVCLUSTER_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) != "" {
		if err := ownProcess(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func ownProcess() error {
	p, err := startProcess("sleep", "sleep", []string{"600"}, nil, nil)
	if err != nil {
		return err
	}
	fmt.Println(p.Pid())
	<-p.Done()
	return errors.New("the process ended before its owner")
}

// A cluster whose process is killed leaves none of its processes behind.
func TestProcessEndsWithItsOwner(t *testing.T) {
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerEnv+"=1")
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	if err := owner.Process.Kill(); err != nil {
		t.Error(err)
	}
	// It was killed: Wait has nothing else to say.
	_ = owner.Wait()
	if readErr != nil {
		t.Fatal(readErr)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := Poll(ctx, "the end of the owner's process", func() (bool, string, error) {
		return gone(pid), "it still runs", nil
	}); err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Error(err)
	}
}

// gone tells whether a process has ended; a zombie has, whoever reaps it.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}

func TestStartOfMissingProgram(t *testing.T) {
	if _, err := startProcess("plugin x", "/nonexistent/program", nil, nil, nil); !errors.Is(err, os.ErrNotExist) ||
		!strings.Contains(err.Error(), "plugin x") {
		t.Errorf("error %v; want one that names the process and the cause", err)
	}
}
