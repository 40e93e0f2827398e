package server

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// codeOf maps the kinds of failure to the codes of the API. Where several
// volumes fail the first kind that is not transient decides: repeating the call
// would not help.
func codeOf(err error) codes.Code {
	worst := codes.OK
	for _, e := range flatten(err) {
		c := codeOfOne(e)
		if worst == codes.OK || transient(worst) && !transient(c) {
			worst = c
		}
	}
	return worst
}

func transient(c codes.Code) bool {
	return c == codes.Unavailable || c == codes.Aborted || c == codes.DeadlineExceeded
}

func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func codeOfOne(err error) codes.Code {
	switch volume.KindOf(err) {
	case volume.Invalid:
		return codes.InvalidArgument
	case volume.NotFound, volume.DriverUnknown, volume.NotMounted:
		return codes.NotFound
	case volume.AlreadyExists:
		return codes.AlreadyExists
	case volume.Forbidden, volume.InUse, volume.BadPolicy, volume.BadPath, volume.BadRecord, volume.Unsupported:
		return codes.FailedPrecondition
	case volume.DriverUnreachable:
		return codes.Unavailable
	case volume.Unsettled, volume.Deadline:
		return codes.Aborted
	case volume.Refused, volume.LedgerFailed:
		return codes.Internal
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return codes.Unknown
}

// failure makes the status of a call that failed, with what became of each
// volume in its details.
func failure(err error, details proto.Message) error {
	st := status.New(codeOf(err), err.Error())
	if details != nil {
		with, detailErr := st.WithDetails(protoadapt.MessageV1Of(details))
		if detailErr != nil {
			return errors.Join(st.Err(), detailErr)
		}
		st = with
	}
	return st.Err()
}
