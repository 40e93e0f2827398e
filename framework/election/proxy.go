package election

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// The headers that Marathon's proxies set (contract 0.1).
const (
	viaHeader    = "X-Marathon-Via"
	leaderHeader = "X-Marathon-Leader"
)

// How long a request waits for a leader: Marathon's numbers.
const (
	leaderTries = 10
	leaderPause = 250 * time.Millisecond
)

// Leadership tells who leads. *Election implements it.
type Leadership interface {
	Leader() (leader Member, self, known bool)
}

// ProxyConfig sets a Proxy. Zero values mean the defaults in brackets.
type ProxyConfig struct {
	// Self is host:port, under which this process shows in X-Marathon-Via.
	Self           string
	ConnectTimeout time.Duration // to the leader [5s]
	ReadTimeout    time.Duration // for the head of the leader's answer [10s]
	// Trust is for leaders whose URL is https [the system's authorities].
	Trust *Trust
}

// Proxy serves the API of the process that leads: its own, or by asking the
// other. It may be used concurrently.
type Proxy struct {
	cfg       ProxyConfig
	who       Leadership
	log       *zap.Logger
	transport *http.Transport
	local     atomic.Pointer[http.Handler]
}

// NewProxy makes a Proxy; until SetLocal it has nothing of its own to serve.
func NewProxy(cfg ProxyConfig, who Leadership, log *zap.Logger) *Proxy {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = 10 * time.Second
	}
	dialer := &net.Dialer{Timeout: cfg.ConnectTimeout}
	return &Proxy{cfg: cfg, who: who, log: log, transport: &http.Transport{
		DialContext: dialer.DialContext,
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return cfg.Trust.dial(ctx, dialer, network, address)
		},
		ResponseHeaderTimeout: cfg.ReadTimeout,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       time.Minute,
	}}
}

// SetLocal has requests served by h while this process leads; nil ends that.
func (p *Proxy) SetLocal(h http.Handler) {
	if h == nil {
		p.local.Store(nil)
		return
	}
	p.local.Store(&h)
}

// Close drops idle connections to leaders.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	leader, local := p.await(r.Context())
	switch {
	case local != nil:
		local.ServeHTTP(w, r)
	case leader == nil:
		refuse(w, "Could not determine the current leader")
	case p.loops(r):
		p.log.Warn("request came back to this process", zap.Strings("via", r.Header.Values(viaHeader)))
		refuse(w, fmt.Sprintf("Detected proxying loop: the request passed %s before", p.cfg.Self))
	case r.URL.Path == "/v2/events" || strings.HasPrefix(r.URL.Path, "/v2/events/"):
		to := *leader
		to.Path, to.RawPath, to.RawQuery = r.URL.Path, r.URL.RawPath, r.URL.RawQuery
		http.Redirect(w, r, to.String(), http.StatusFound)
	default:
		p.forward(leader, w, r)
	}
}

// await finds the handler of this process or the URL of the leader; both are nil
// when nobody leads for too long.
func (p *Proxy) await(ctx context.Context) (*url.URL, http.Handler) {
	for try := 0; ; try++ {
		leader, self, known := p.who.Leader()
		if local := p.local.Load(); self && local != nil {
			return nil, *local
		}
		if known && !self {
			if u, err := url.Parse(leader.URL); err == nil && u.Host != "" && u.Host != p.cfg.Self {
				return u, nil
			}
			// A node of this process's own earlier life: it goes in time.
		}
		if try >= leaderTries {
			return nil, nil
		}
		select {
		case <-time.After(leaderPause):
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// loops tells whether the request has passed this process before.
func (p *Proxy) loops(r *http.Request) bool {
	for _, line := range r.Header.Values(viaHeader) {
		for via := range strings.SplitSeq(line, ",") {
			if _, who, ok := strings.Cut(strings.TrimSpace(via), " "); ok && who == p.cfg.Self {
				return true
			}
		}
	}
	return false
}

func (p *Proxy) forward(leader *url.URL, w http.ResponseWriter, r *http.Request) {
	proxy := httputil.ReverseProxy{
		Transport: p.transport,
		Rewrite: func(out *httputil.ProxyRequest) {
			out.SetURL(leader)
			out.SetXForwarded()
			out.Out.Header.Add(viaHeader, "1.1 "+p.cfg.Self)
		},
		ModifyResponse: func(answer *http.Response) error {
			answer.Header.Add(viaHeader, "1.1 "+p.cfg.Self)
			answer.Header.Set(leaderHeader, leader.String())
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) {
				return // the client has gone
			}
			p.log.Warn("request not passed on to the leader", zap.String("leader", leader.String()), zap.Error(err))
			refuse(w, unreachable(leader, err))
		},
		FlushInterval: -1,
		ErrorLog:      zap.NewStdLog(p.log),
	}
	proxy.ServeHTTP(w, r)
}

// unreachable says why a leader cannot be asked.
func unreachable(leader *url.URL, err error) string {
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return fmt.Sprintf("The certificate of the current leader, %s, is not trusted by this process: %v", leader, certificate.Err)
	}
	return fmt.Sprintf("The current leader, %s, does not answer", leader)
}

func refuse(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusBadGateway)
	_, _ = io.WriteString(w, text+"\n") // the status is out
}
