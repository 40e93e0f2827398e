package mesos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/detect"
)

func rescind(id string) *scheduler.Event {
	return &scheduler.Event{Type: scheduler.Event_RESCIND, Rescind: &scheduler.Event_Rescind{OfferID: mesosgo.OfferID{Value: id}}}
}

// craftedEvent makes the generated decoder index before the beginning of its
// input: an unknown field whose length overflows when it is added to the
// position.
func craftedEvent(t *testing.T) []byte {
	t.Helper()
	var event []byte
	for range 32 {
		event = append(event, 0x08, byte(scheduler.Event_HEARTBEAT)) // bytes in front of the field
	}
	event = append(event, 0xa2, 0x06) // field 100, length-delimited
	return append(event, proto.EncodeVarint(math.MaxInt64-20)...)
}

// TestMisbehavingMasterIsSubscribedWithAgain runs through what ends a
// subscription: each time the next one has the same framework id, the core is
// told, and the reason is kept.
func TestMisbehavingMasterIsSubscribedWithAgain(t *testing.T) {
	const silence = "silence" // the only one that is about time
	crafted := craftedEvent(t)
	tests := []struct {
		name      string
		misbehave func(s *stream)
		cause     func(error) bool
	}{
		{"end of the stream", func(*stream) {}, func(err error) bool { return errors.Is(err, io.EOF) }},
		{"cut connection", func(s *stream) { s.abort() },
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"half a record", func(s *stream) { s.raw("100\nhalf") },
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"half a length", func(s *stream) { s.raw("10") },
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"length that is no number", func(s *stream) { s.raw("12x\nabc"); s.hold() }, says(`record length "12x"`)},
		{"negative length", func(s *stream) { s.raw("-5\nabc"); s.hold() }, says(`record length "-5"`)},
		{"length without end", func(s *stream) { s.raw(strings.Repeat("1", 64)); s.hold() }, says("not a number")},
		{"length beyond all bounds", func(s *stream) { s.raw("18446744073709551615\n"); s.hold() }, says("not a number")},
		{"record of 1 GiB", func(s *stream) { s.raw("1073741824\n"); s.hold() }, says("1073741824 bytes announced")},
		{"record that is no message", func(s *stream) { s.frame([]byte{0xff, 0xff}); s.hold() }, says("decode an event of 2 bytes")},
		{"record that makes the decoder panic", func(s *stream) { s.frame(crafted); s.hold() }, says("decoder panicked")},
		{"message without a required field", func(s *stream) {
			s.frame([]byte{0x08, byte(scheduler.Event_RESCIND), 0x22, 0x00})
			s.hold()
		}, says("offer_id")},
		{silence, func(s *stream) { s.hold() }, func(err error) bool {
			var silent *silenceError
			return errors.As(err, &silent) && silent.after == 5*time.Second/20
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newScriptedMaster(t, func(n int, s *stream) {
				if n == 1 {
					if test.name == silence {
						s.acceptEvery(0.05) // 5 intervals make 250 ms
					} else {
						s.accept()
					}
					test.misbehave(s)
					return
				}
				s.accept()
				s.hold()
			})
			c := run(t, testConfig(t, m.URL), "")
			expect[core.Subscribed](c)
			if e := expect[core.Disconnected](c); !test.cause(e.Cause) {
				t.Errorf("cause %v", e.Cause)
			}
			again := expect[core.Subscribed](c)
			if again.StreamID != "stream-2" || again.FrameworkID != testFrameworkID {
				t.Errorf("subscribed again: %+v", again)
			}
			second := m.subscriptions()[1].call
			if second.FrameworkID.GetValue() != testFrameworkID || second.Subscribe.FrameworkInfo.ID.GetValue() != testFrameworkID {
				t.Errorf("second SUBSCRIBE without the framework id: %v", second)
			}
			if first := m.subscriptions()[0].call; first.FrameworkID != nil {
				t.Errorf("first SUBSCRIBE with framework id %v", first.FrameworkID)
			}
		})
	}
}

func says(part string) func(error) bool {
	return func(err error) bool { return err != nil && strings.Contains(err.Error(), part) }
}

func TestCraftedEventReallyPanicsInTheGeneratedDecoder(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic: the test of the recovery tests nothing")
		}
	}()
	_ = proto.Unmarshal(craftedEvent(t), &scheduler.Event{})
}

func TestAnnouncedRecordTakesNoMemoryBeforeItArrives(t *testing.T) {
	for name, reader := range map[string]*frameReader{
		"too large": newFrameReader(strings.NewReader("1073741824\nabc"), 64<<20),
		"allowed":   newFrameReader(strings.NewReader("67108864\nabc"), 64<<20),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := reader.next()
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%s: %d bytes were allocated for 3 that arrived", name, used)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("3\nabc2\nde"))
	f.Add([]byte("0\n0\n1\nx"))
	f.Add([]byte("99999999999999999999\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		reader := newFrameReader(strings.NewReader(string(data)), 1<<10)
		total := 0
		for {
			frame, err := reader.next()
			if err != nil {
				break
			}
			if total += len(frame); total > len(data) {
				t.Fatal("more came out than went in")
			}
			_ = decode(frame, &scheduler.Event{}) // must not panic
		}
	})
}

func TestUnknownEventIsSurvivedAndLogged(t *testing.T) {
	m := newScriptedMaster(t, func(_ int, s *stream) {
		s.accept()
		// Type 99 with a field 100 that no version knows.
		s.frame([]byte{0x08, 99, 0xa2, 0x06, 0x03, 'n', 'e', 'w'})
		s.send(&scheduler.Event{Type: scheduler.Event_HEARTBEAT})
		s.send(&scheduler.Event{Type: scheduler.Event_UPDATE}) // without its content
		s.send(rescind("o1"))
		s.hold()
	})
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	if e := expect[core.Rescind](c); e.OfferID != "o1" {
		t.Errorf("event %+v", e)
	}
	if n := c.logs.FilterMessage("event of unknown type from the Mesos master is ignored").Len(); n != 1 {
		t.Errorf("%d lines logged, want 1", n)
	}
}

func TestOfferedResourceThatIsNotUnderstoodIsLeftOut(t *testing.T) {
	offer := mesosgo.Offer{
		ID: mesosgo.OfferID{Value: "o1"}, AgentID: mesosgo.AgentID{Value: "a1"}, Hostname: "h",
		AllocationInfo: &mesosgo.Resource_AllocationInfo{Role: pointer("dvdi")},
		Resources: []mesosgo.Resource{
			{Name: "disk", Type: mesosgo.SCALAR.Enum(), Scalar: &mesosgo.Value_Scalar{Value: 1},
				Disk: &mesosgo.Resource_DiskInfo{Source: &mesosgo.Resource_DiskInfo_Source{Type: 17}}},
			{Name: "odd", Type: mesosgo.TEXT.Enum()},
			{Name: "cpus", Type: mesosgo.SCALAR.Enum(), Scalar: &mesosgo.Value_Scalar{Value: 1}},
		},
	}
	m := newScriptedMaster(t, func(_ int, s *stream) {
		s.accept()
		s.send(&scheduler.Event{Type: scheduler.Event_OFFERS, Offers: &scheduler.Event_Offers{Offers: []mesosgo.Offer{offer}}})
		s.hold()
	})
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	got := expect[core.Offers](c).Offers[0]
	if len(got.Resources) != 1 || got.Resources[0].Name != "cpus" || got.Resources[0].AllocatedRole != "dvdi" {
		t.Errorf("resources %+v", got.Resources)
	}
	if n := c.logs.FilterMessage("offered resource is not understood and not used").Len(); n != 2 {
		t.Errorf("%d lines logged, want 2", n)
	}
}

func TestHeartbeatsKeepASilentSubscription(t *testing.T) {
	m := newScriptedMaster(t, func(_ int, s *stream) {
		s.acceptEvery(0.8) // four seconds of silence end it
		for range 25 {
			time.Sleep(200 * time.Millisecond)
			s.send(&scheduler.Event{Type: scheduler.Event_HEARTBEAT})
		}
		s.send(rescind("late"))
		s.hold()
	})
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	expect[core.Rescind](c)
}

func TestSlowCoreIsNotTakenForASilentMaster(t *testing.T) {
	const events = 200
	sent := make(chan struct{})
	m := newScriptedMaster(t, func(_ int, s *stream) {
		s.acceptEvery(0.6) // three seconds of silence end it
		for range events {
			s.send(rescind("o"))
		}
		close(sent)
		for s.request.Context().Err() == nil {
			s.send(&scheduler.Event{Type: scheduler.Event_HEARTBEAT})
			time.Sleep(10 * time.Millisecond)
		}
	})
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	<-sent
	time.Sleep(4 * time.Second) // longer than the silence that would end it
	for range events {
		expect[core.Rescind](c)
	}
}

func TestSubscribeIsRetriedUntilAMasterLeads(t *testing.T) {
	m := newScriptedMaster(t, func(n int, s *stream) {
		switch n {
		case 1:
			http.Error(s, "No leader elected", http.StatusServiceUnavailable)
		case 2:
			s.hold() // no answer at all
		case 3:
			s.abort()
		case 4:
			s.Header().Set("Location", "//"+s.request.Host+"/master/api/v1/scheduler")
			s.WriteHeader(http.StatusTemporaryRedirect) // to itself
		case 5:
			s.Header().Set(streamIDHeader, s.id)
			s.WriteHeader(http.StatusOK)
			s.send(rescind("before SUBSCRIBED"))
			s.hold()
		case 6:
			s.WriteHeader(http.StatusOK)
			s.send(&scheduler.Event{Type: scheduler.Event_SUBSCRIBED, Subscribed: &scheduler.Event_Subscribed{
				FrameworkID: &mesosgo.FrameworkID{Value: "f"}}}) // without a stream id
			s.hold()
		default:
			s.accept()
			s.hold()
		}
	})
	config := testConfig(t, m.URL)
	config.CallTimeout = 300 * time.Millisecond
	c := run(t, config, "f-7")
	expect[core.Subscribed](c)
	for _, r := range m.subscriptions() {
		if r.call.FrameworkID.GetValue() != "f-7" {
			t.Errorf("SUBSCRIBE with framework id %v", r.call.FrameworkID)
		}
	}
}

func TestRedirectWithoutASchemeIsFollowedAndRemembered(t *testing.T) {
	leader := newScriptedMaster(t, func(_ int, s *stream) { s.accept(); s.hold() })
	other := newScriptedMaster(t, func(_ int, s *stream) {
		s.Header().Set("Location", strings.TrimPrefix(leader.URL, "http:")+"/master/api/v1/scheduler")
		s.WriteHeader(http.StatusTemporaryRedirect)
	})
	c := run(t, testConfig(t, other.URL), "")
	expect[core.Subscribed](c)
	if err := c.Revive(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	if got := leader.nextCall(t).call; got.Type != scheduler.Call_REVIVE {
		t.Errorf("call %v", got)
	}
}

func TestRedirectNeverChangesTheScheme(t *testing.T) {
	base, err := (&transport{}).baseURL(detect.Leader{Address: "https://m1:5050"})
	if err != nil {
		t.Fatal(err)
	}
	for location, want := range map[string]string{
		"//m2:5050/master/api/v1/scheduler":         "https://m2:5050",
		"https://m2:5050/api/v1/scheduler":          "https://m2:5050",
		"//[2001:db8::1]:5050/api/v1/scheduler":     "https://[2001:db8::1]:5050",
		"http://m2:5050/master/api/v1/scheduler":    "",
		"mailto:someone":                            "",
		"//m2:5050%zz/master/api/v1/scheduler":      "",
		"javascript://m2:5050/master/api/v1/schedu": "",
	} {
		got, err := leaderOf(base, location)
		if want == "" {
			if err == nil {
				t.Errorf("%s: %s", location, got)
			}
		} else if err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", location, got, err)
		}
	}
}

func TestRefusalOfTheFirstSubscriptionEndsTheRun(t *testing.T) {
	for _, status := range []int{400, 401, 403, 415} {
		m := newScriptedMaster(t, func(_ int, s *stream) { http.Error(s, "because", status) })
		c := run(t, testConfig(t, m.URL), "")
		var refusal *core.CallError
		if err := c.wait(); !errors.As(err, &refusal) || *refusal != (core.CallError{Call: "SUBSCRIBE", Status: status, Body: "because"}) {
			t.Errorf("%d: Run returned %v", status, err)
		}
	}
}

// A master that has just been started listens before it knows its routes.
func TestMasterWithoutRoutesIsWaitedFor(t *testing.T) {
	m := newScriptedMaster(t, func(n int, s *stream) {
		if n < 3 {
			http.NotFound(s, s.request)
			return
		}
		s.accept()
		s.hold()
	})
	expect[core.Subscribed](run(t, testConfig(t, m.URL), ""))

	notFound := fmt.Errorf("wrapped: %w", &core.CallError{Call: "SUBSCRIBE", Status: http.StatusNotFound})
	if !startingUp(notFound, routesTimeout-1) || startingUp(notFound, routesTimeout) {
		t.Error("a 404 is not waited for as long as it should be")
	}
	if startingUp(&core.CallError{Status: http.StatusForbidden}, 0) {
		t.Error("another refusal is waited for")
	}
}

func TestLaterRefusalIsRetried(t *testing.T) {
	m := newScriptedMaster(t, func(n int, s *stream) {
		switch n {
		case 1:
			s.accept()
		case 2:
			http.Error(s, "", http.StatusUnauthorized)
		case 3:
			s.WriteHeader(http.StatusOK)
			s.send(&scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{Message: "Not authorized to use role"}})
		default:
			s.accept()
			s.hold()
		}
	})
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	expect[core.Disconnected](c)
	if e := expect[core.MasterError](c); e.Message != "Not authorized to use role" {
		t.Errorf("event %+v", e)
	}
	expect[core.Subscribed](c)
}

func TestErrorEventsThatEndTheRun(t *testing.T) {
	for message, want := range map[string]error{
		"Framework has been removed": core.ErrFrameworkRemoved,
		"Framework failed over":      core.ErrFailedOver,
	} {
		for _, subscribedBefore := range []bool{false, true} {
			m := newScriptedMaster(t, func(_ int, s *stream) {
				if subscribedBefore {
					s.accept()
				} else {
					s.WriteHeader(http.StatusOK)
				}
				s.send(&scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{Message: message}})
			})
			c := run(t, testConfig(t, m.URL), "f-1")
			if subscribedBefore {
				expect[core.Subscribed](c)
			}
			if e := expect[core.MasterError](c); e.Message != message {
				t.Errorf("event %+v", e)
			}
			if err := c.wait(); !errors.Is(err, want) {
				t.Errorf("%s (subscribed %v): Run returned %v", message, subscribedBefore, err)
			}
			if n := len(m.subscriptions()); n != 1 {
				t.Errorf("%s: %d subscriptions", message, n)
			}
		}
	}
}

func TestOtherErrorEventEndsTheFirstSubscription(t *testing.T) {
	m := newScriptedMaster(t, func(_ int, s *stream) {
		s.WriteHeader(http.StatusOK)
		s.send(&scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{Message: "Roles { x } are not present in the master's --roles"}})
	})
	c := run(t, testConfig(t, m.URL), "")
	if err := c.wait(); err == nil || !strings.Contains(err.Error(), "--roles") {
		t.Errorf("Run returned %v", err)
	}
}

// turningDetector names one leader after the other.
type turningDetector struct{ leaders chan detect.Leader }

func (d turningDetector) Leader(ctx context.Context) (detect.Leader, error) {
	select {
	case l := <-d.leaders:
		return l, nil
	case <-ctx.Done():
		return detect.Leader{}, ctx.Err()
	}
}

func TestChangeOfLeaderIsFollowedAtOnce(t *testing.T) {
	hold := func(_ int, s *stream) { s.accept(); s.hold() }
	first, second := newScriptedMaster(t, hold), newScriptedMaster(t, hold)
	detector := turningDetector{make(chan detect.Leader, 2)}
	lost := make(chan struct{})
	detector.leaders <- detect.Leader{Address: first.URL, Lost: lost}
	config := testConfig(t, first.URL)
	config.Detector = detector
	config.MinBackoff, config.MaxBackoff = time.Hour, time.Hour // no pause, or the test fails
	c := run(t, config, "")
	expect[core.Subscribed](c)

	close(lost)
	if e := expect[core.Disconnected](c); !errors.Is(e.Cause, errLeaderChanged) {
		t.Errorf("cause %v", e.Cause)
	}
	detector.leaders <- detect.Leader{Address: second.URL}
	expect[core.Subscribed](c)
	if err := c.Revive(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	second.nextCall(t)
}

// TestAnotherLeaderEndsThePause has the leading master refuse: the pause that
// follows is longer than any test, unless another one leads.
func TestAnotherLeaderEndsThePause(t *testing.T) {
	first := newScriptedMaster(t, func(_ int, s *stream) { s.WriteHeader(http.StatusServiceUnavailable) })
	second := newScriptedMaster(t, func(_ int, s *stream) { s.accept(); s.hold() })
	detector := turningDetector{make(chan detect.Leader, 2)}
	lost := make(chan struct{})
	detector.leaders <- detect.Leader{Address: first.URL, Lost: lost}
	config := testConfig(t, first.URL)
	config.Detector = detector
	config.MinBackoff, config.MaxBackoff = time.Hour, time.Hour
	c := run(t, config, "")
	eventually(t, "the pause", func() bool {
		return c.logs.FilterMessage("subscription with the Mesos master ended").Len() > 0
	})

	detector.leaders <- detect.Leader{Address: second.URL}
	close(lost)
	expect[core.Subscribed](c)
}

func TestRunEndsWithItsContextWhateverItWaitsFor(t *testing.T) {
	silent := newScriptedMaster(t, func(_ int, s *stream) { s.hold() })
	subscribed := newScriptedMaster(t, func(_ int, s *stream) {
		s.accept()
		for range 1000 { // more than anyone takes
			s.send(rescind("o"))
		}
		s.hold()
	})
	refusing := newScriptedMaster(t, func(_ int, s *stream) { http.Error(s, "", http.StatusServiceUnavailable) })
	for name, m := range map[string]*scriptedMaster{"answer": silent, "core": subscribed, "pause": refusing} {
		config := testConfig(t, m.URL)
		if name == "pause" {
			config.MinBackoff, config.MaxBackoff = time.Hour, time.Hour
		}
		c := run(t, config, "")
		eventually(t, "SUBSCRIBE", func() bool { return len(m.subscriptions()) > 0 })
		c.stop()
		if err := c.wait(); err != nil {
			t.Errorf("waiting for %s: Run returned %v", name, err)
		}
		if err := c.Revive(testContext(t), nil); !errors.Is(err, core.ErrNotSubscribed) {
			t.Errorf("waiting for %s: call after the end: %v", name, err)
		}
		if err := c.Run(testContext(t), ""); !errors.Is(err, errRunTwice) {
			t.Errorf("second Run returned %v", err)
		}
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s never happened", what)
		}
	}
}

func TestPausesGrowToTheirMaximumWithJitter(t *testing.T) {
	b := &backoff{min: 100 * time.Millisecond, max: time.Second}
	for _, top := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		top *= time.Millisecond
		if got := b.next(); got < top/2 || got > top {
			t.Errorf("pause %s, want one of %s to %s", got, top/2, top)
		}
	}
	b.reset()
	if got := b.next(); got > 100*time.Millisecond {
		t.Errorf("pause %s after the reset", got)
	}
}
