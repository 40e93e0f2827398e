package dockerplugin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// Docker's schedule for a plugin that does not answer: wait 1, 2, 4, 8 s as
// long as that ends within 30 s.
const (
	firstRetry  = time.Second
	retryWindow = 30 * time.Second
)

// call is one method call on behalf of a caller.
type call struct {
	method   string // such as "VolumeDriver.Mount"
	volume   string
	request  any
	secrets  volume.Secrets
	mutating bool // must not be sent twice
	optional bool // is not worth a second attempt once it was sent
	result   any  // decoded into, may be nil
}

// attempt is what came of sending a request.
type attempt struct {
	reply
	sent bool
	err  error
}

// do makes the call, preceded by the handshake if the plugin has not had one,
// and returns the pid of the plugin.
func (d *driver) do(ctx context.Context, c call) (int, error) {
	start := d.config.Clock.Now()
	c.secrets = volume.AllSecrets(ctx, c.secrets)
	body, err := json.Marshal(c.request)
	if err != nil {
		return 0, d.fail(c, start, volume.Invalid, 0, "", err)
	}
	if !utf8.ValidString(c.volume) { // JSON would carry another name
		return 0, d.fail(c, start, volume.Invalid, 0, "the volume's name is not valid UTF-8", nil)
	}
	if err := d.activate(ctx, c, start); err != nil {
		return 0, err
	}
	a := d.exchange(ctx, c, c.method, body, start)
	if a.err != nil {
		return a.pid, d.noAnswer(c, start, a)
	}
	return a.pid, d.judge(c, start, a)
}

// exchange sends until there is an answer, as Docker does: a request of which
// no byte was sent may be sent again, one that changes nothing always.
func (d *driver) exchange(ctx context.Context, c call, method string, body []byte, start time.Time) attempt {
	for wait := firstRetry; ; wait *= 2 {
		a := d.once(ctx, c, method, body)
		harmless := !a.sent || !c.mutating && !c.optional || method == methodActivate
		if a.err == nil || !harmless || hopeless(a.err) || ctx.Err() != nil || d.tooLate(ctx, start, wait) {
			return a
		}
		if d.config.Clock.Sleep(ctx, wait) != nil {
			return a // the reason of the failure says more than the deadline
		}
	}
}

// hopeless errors are the same at the next attempt.
func hopeless(err error) bool {
	return errors.Is(err, errTooLarge) || errors.Is(err, fs.ErrPermission) || errors.As(err, new(*tls.CertificateVerificationError))
}

// tooLate says that another attempt after wait would not be made in time.
func (d *driver) tooLate(ctx context.Context, start time.Time, wait time.Duration) bool {
	next := d.config.Clock.Now().Add(wait)
	deadline, limited := ctx.Deadline()
	return next.Sub(start) >= retryWindow || limited && !next.Before(deadline)
}

// once sends a request and tells the trace.
func (d *driver) once(ctx context.Context, c call, method string, body []byte) attempt {
	start := d.config.Clock.Now()
	var a attempt
	a.reply, a.sent, a.err = d.client.send(ctx, method, body, d.config.MaxAnswer)
	if d.config.Trace != nil {
		d.config.Trace(Exchange{
			Driver: d.name, Address: d.found.endpoint.address(), Method: method,
			Request: redactJSON(body, c.secrets), Status: a.status, Answer: redactJSON(a.body, c.secrets),
			Err: a.err, Elapsed: d.config.Clock.Now().Sub(start),
		})
	}
	return a
}

// noAnswer is the error of a call whose last attempt brought no usable answer.
func (d *driver) noAnswer(c call, start time.Time, a attempt) error {
	if !a.sent {
		return d.unreachable(c, start, a.err)
	}
	if errors.Is(a.err, errTooLarge) {
		return d.garbled(c, start, a.status, a.err)
	}
	err := d.fail(c, start, volume.Unsettled, a.status, "", a.err)
	err.Hint = "the plugin may still be working; look at its log before repeating"
	return err
}

func (d *driver) unreachable(c call, start time.Time, cause error) *volume.Error {
	err := d.fail(c, start, volume.DriverUnreachable, 0, "", cause)
	err.Hint = fmt.Sprintf("start the plugin that listens on %s, or remove %s", d.found.endpoint.address(), d.found.source)
	if errors.Is(cause, fs.ErrPermission) {
		err.Hint = "this user may not connect to " + d.found.endpoint.address() + ": run dvdcli as the plugin's user or root, or give the right to write to the socket"
	}
	return err
}

// judge tells success from failure by status and body.
func (d *driver) judge(c call, start time.Time, a attempt) error {
	if a.status != http.StatusOK {
		return d.refused(c, start, a.status, failureText(a.body))
	}
	text, err := decodeAnswer(a.body, c.result)
	switch {
	case err != nil:
		return d.garbled(c, start, a.status, err)
	case text != "":
		return d.refused(c, start, a.status, text)
	}
	return nil
}

// garbled is the error of a call whose answer says nothing. One that should have
// changed something did, or did not.
func (d *driver) garbled(c call, start time.Time, status int, cause error) error {
	kind := volume.Refused
	if c.mutating && status == http.StatusOK {
		kind = volume.Garbled
	}
	err := d.fail(c, start, kind, status, "", cause)
	err.Hint = "this is a fault of the plugin; see its log"
	return err
}

// refused is the error of a call that the plugin answered with a failure.
func (d *driver) refused(c call, start time.Time, status int, text string) error {
	kind := volume.Refused
	if lacksMethod(c.method, status, text) {
		kind = volume.Unsupported
	}
	err := d.fail(c, start, kind, status, shown(redactJSON([]byte(text), c.secrets)), nil)
	if text == "" {
		err.Message = "the plugin gives no reason"
		err.Hint = "look at its log"
	}
	return err
}

func (d *driver) fail(c call, start time.Time, kind volume.Kind, status int, message string, cause error) *volume.Error {
	return &volume.Error{
		Kind: kind, Op: c.method, Driver: d.name, Volume: c.volume, Status: status,
		Message: message, Err: cause, Elapsed: d.config.Clock.Now().Sub(start),
	}
}

// decodeAnswer decodes a 200 answer: the text of a failure, or the result. An
// empty body is an empty answer.
func decodeAnswer(body []byte, result any) (failure string, err error) {
	if len(strings.TrimSpace(string(body))) == 0 {
		return "", nil
	}
	var answer struct{ Err json.RawMessage }
	if err := decodeFirst(body, &answer); err != nil {
		return "", err
	}
	if failure := errText(answer.Err); failure != "" {
		return failure, nil
	}
	if result == nil {
		return "", nil
	}
	return "", decodeFirst(body, result)
}

// decodeFirst decodes the first JSON value and ignores what follows it, as
// Docker does.
func decodeFirst(body []byte, into any) error {
	err := json.NewDecoder(strings.NewReader(string(body))).Decode(into)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it ends in the middle: %w", err)
	}
	return err
}

// errText is the text of an Err or Error field; other values than strings
// count as their JSON.
func errText(raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// failureText finds the reason in the body of a failure: Err, else Error, else
// the body itself.
func failureText(body []byte) string {
	var answer struct{ Err, Error json.RawMessage }
	if json.Unmarshal(body, &answer) == nil {
		for _, raw := range []json.RawMessage{answer.Err, answer.Error} {
			if text := errText(raw); text != "" {
				return text
			}
		}
	}
	return strings.TrimSpace(string(body))
}

// lacksMethod recognises a plugin that does not know the method: by the status
// that routers give, with the text that they give. A 404 that says something
// else is about a volume.
func lacksMethod(method string, status int, text string) bool {
	switch status {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	case http.StatusNotFound:
	default:
		return false
	}
	text = strings.ToLower(text)
	for _, phrase := range []string{"page not found", "handler not found", "<html", "url was not found", "no route", "unknown method", "not implemented"} {
		if strings.Contains(text, phrase) {
			return true
		}
	}
	bare := text == "" || text == "{}" || text == "not found"
	return bare && (method == methodGet || method == methodList || method == methodCapabilities)
}

// maxShown bounds a plugin's text in an error, in bytes.
const maxShown = 2000

// shown makes a plugin's text fit for a terminal and a log line.
func shown(text string) string {
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}
