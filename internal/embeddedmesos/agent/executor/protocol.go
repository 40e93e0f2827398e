package executor

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
)

// order is a line from the agent to the executor.
type order struct {
	// Launch starts the task; a second one is ignored.
	Launch bool `json:"launch,omitempty"`
	// Acknowledge ends the repetition of the status with this UUID.
	Acknowledge []byte `json:"acknowledge,omitempty"`
	// Kill stops the task; Grace overrides the grace period of its own policy.
	Kill  bool           `json:"kill,omitempty"`
	Grace *time.Duration `json:"grace,omitempty"`
	// Lose ends everything at once without a trace, as a power failure would.
	Lose bool `json:"lose,omitempty"`
}

// report is a line from the executor to the agent.
type report struct {
	Status []byte `json:"status,omitempty"` // TaskStatus, encoded as protobuf
	Error  string `json:"error,omitempty"`  // why the task could not be started
}

// Report is what an executor says.
type Report struct {
	// Status of the task. The same status may come several times, until it is
	// acknowledged.
	Status *mesos.TaskStatus
	// Failure tells why no task was started; the executor ends then.
	Failure string
}

// Conn is the agent's connection to an executor. Writing is safe for
// concurrent use.
type Conn struct {
	conn  net.Conn
	lines *bufio.Reader
	mu    sync.Mutex // serialises writes
}

// Connect connects to the executor of a runtime directory. It fails when that
// executor is not running. The executor answers with every status that has
// not been acknowledged yet.
func Connect(runtimeDir string) (*Conn, error) {
	address, closeDir, err := socketAddress(runtimeDir)
	if err != nil {
		return nil, fmt.Errorf("connect to executor: %w", err)
	}
	defer closeDir()
	conn, err := net.DialUnix("unix", nil, address)
	if err != nil {
		return nil, fmt.Errorf("connect to executor: %w", err)
	}
	return &Conn{conn: conn, lines: bufio.NewReader(conn)}, nil
}

// Next waits for the next report. It fails when the executor has ended or the
// connection was closed.
func (c *Conn) Next() (Report, error) {
	var r report
	if err := receive(c.lines, &r); err != nil {
		return Report{}, err
	}
	if r.Error != "" {
		return Report{Failure: r.Error}, nil
	}
	status := new(mesos.TaskStatus)
	if err := status.Unmarshal(r.Status); err != nil {
		return Report{}, fmt.Errorf("report of executor: %w", err)
	}
	return Report{Status: status}, nil
}

// Launch has the executor start its task.
func (c *Conn) Launch() error { return c.send(order{Launch: true}) }

// Acknowledge ends the repetition of a status. After the acknowledgement of a
// terminal one the executor ends.
func (c *Conn) Acknowledge(uuid []byte) error { return c.send(order{Acknowledge: uuid}) }

// Kill stops the task. A grace period overrides that of the task's policy.
func (c *Conn) Kill(grace *time.Duration) error { return c.send(order{Kill: true, Grace: grace}) }

// Lose has the executor kill the task, its descendants and itself at once,
// recording nothing.
func (c *Conn) Lose() error { return c.send(order{Lose: true}) }

// Close closes the connection; the executor goes on.
func (c *Conn) Close() error { return c.conn.Close() }

func (c *Conn) send(o order) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return transmit(c.conn, o)
}

// Statuses returns what the executor of a runtime directory has reported so
// far, acknowledged or not, also after its end.
func Statuses(runtimeDir string) ([]mesos.TaskStatus, error) {
	records, err := checkpoint.ReadLog(filepath.Join(runtimeDir, statusFile))
	if err != nil {
		return nil, err
	}
	statuses := make([]mesos.TaskStatus, len(records))
	for n, record := range records {
		if err := statuses[n].Unmarshal(record); err != nil {
			return nil, fmt.Errorf("statuses of executor in %s: %w", runtimeDir, err)
		}
	}
	return statuses, nil
}

// writeTimeout bounds how long a peer may leave its end unread.
const writeTimeout = 10 * time.Second

func transmit(conn net.Conn, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err = conn.Write(append(data, '\n'))
	return err
}

func receive(lines *bufio.Reader, v any) error {
	line, err := lines.ReadBytes('\n')
	if err != nil {
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return json.Unmarshal(line, v)
}
