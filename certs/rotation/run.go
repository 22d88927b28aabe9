package rotation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/certs"
	"github.com/tulle-mesh/tulle/internal/backoff"
)

// run keeps e's certificate fresh until ctx is done.
func (m *Manager) run(ctx context.Context, e *entry) {
	first := backoff.New(firstRetryMin, firstRetryMax)
	renew := backoff.New(renewRetryMin, renewRetryMax)
	for {
		err := m.fetch(ctx, e)
		if ctx.Err() != nil {
			return
		}
		var at time.Time
		now := time.Now()
		if err == nil {
			first.Reset()
			renew.Reset()
			at = e.next()
		} else {
			at = m.retryAt(e, now, first, renew)
			e.fail(err, at)
			m.logFailure(e, err, at)
		}
		if !sleepUntil(ctx, at) {
			return
		}
	}
}

// retryAt picks the time of the next attempt after a failure: the delays of a
// renewal end with the certificate's life, when workloads begin to wait.
func (m *Manager) retryAt(e *entry, now time.Time, first, renew *backoff.Backoff) time.Time {
	expires := e.notAfter()
	if !now.Before(expires) {
		return now.Add(first.Next())
	}
	at := now.Add(renew.Next())
	if at.After(expires) {
		at = expires
	}
	return at
}

// fetch asks the signer once and keeps what it gives.
func (m *Manager) fetch(ctx context.Context, e *entry) error {
	first := e.begin()
	if err := m.gate.enter(ctx, first); err != nil {
		return err
	}
	defer m.gate.leave()
	reqCtx, cancel := context.WithTimeout(ctx, m.cfg.RequestTimeout)
	defer cancel()
	started := time.Now()
	svid, bundle, err := m.cfg.Signer.Sign(reqCtx, e.id)
	now := time.Now()
	if err == nil {
		switch {
		case svid == nil || bundle == nil || len(svid.Certificates) == 0:
			err = errors.New("the signer returned no certificate or no bundle")
		case svid.ID != e.id:
			err = fmt.Errorf("the signer returned a certificate for %s", svid.ID)
		case !now.Before(svid.Certificates[0].NotAfter):
			err = fmt.Errorf("the signer returned a certificate that expired at %s", svid.Certificates[0].NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.metrics.observe(err, now.Sub(started))
	if err != nil {
		return err
	}
	leaf := svid.Certificates[0]
	at := renewalTime(now, leaf.NotAfter)
	e.succeed(svid, bundle, at)
	m.cfg.Logger.Info("certificate issued",
		zap.String("identity", e.id.String()),
		zap.String("serial", certs.SerialText(leaf.SerialNumber)),
		zap.Time("not_after", leaf.NotAfter),
		zap.Time("renew_at", at))
	return nil
}

func (m *Manager) logFailure(e *entry, err error, at time.Time) {
	m.cfg.Logger.Warn("certificate not issued",
		zap.String("identity", e.id.String()),
		zap.Error(err),
		zap.Bool("refused", refused(err)),
		zap.Time("valid_until", e.notAfter()),
		zap.Time("retry_at", at))
}

func refused(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// renewalTime is half of the life that is left at now, give or take the jitter.
// The life is counted from now and not from NotBefore, which authorities date
// back.
func renewalTime(now, notAfter time.Time) time.Time {
	life := notAfter.Sub(now)
	jitter := time.Duration((rand.Float64()*2 - 1) * jitterFraction * float64(life))
	return now.Add(max(life/2+jitter, minRenewDelay))
}

func (e *entry) next() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.nextAt
}

// sleepUntil waits for the wall clock to show at; false when ctx is done first.
func sleepUntil(ctx context.Context, at time.Time) bool {
	at = at.Round(0) // compare wall clocks
	for {
		left := at.Sub(time.Now().Round(0))
		if left <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(min(left, wakeInterval))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}
