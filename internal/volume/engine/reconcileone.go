package engine

import (
	"context"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// ReconcileOne is Reconcile for one volume, without a look at any other.
func (e *Engine) ReconcileOne(ctx context.Context, req ReconcileRequest, key ledger.Key) Finding {
	return e.reconcileOne(ctx, req, key)
}
