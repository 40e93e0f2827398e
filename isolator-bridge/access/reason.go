package access

// Reason says why a connection or request was refused. The values are label
// values of a metric: few, fixed, lower case.
type Reason string

// The reasons.
const (
	NoToken     Reason = "no_token"
	WrongToken  Reason = "wrong_token"
	Certificate Reason = "certificate" // the TLS handshake failed: no certificate, an expired one, one of somebody else
	OtherUser   Reason = "other_user"  // the process at the other end of the Unix socket
	TooLarge    Reason = "too_large"
	Malformed   Reason = "malformed"
	TooSlow     Reason = "too_slow"
	TooMany     Reason = "too_many" // connections at once
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{NoToken, WrongToken, Certificate, OtherUser, TooLarge, Malformed, TooSlow, TooMany}
}

// Counter is told of each refusal. It is called by many goroutines and must not
// block.
type Counter func(Reason)

func (c Counter) count(r Reason) {
	if c != nil {
		c(r)
	}
}
