package app

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/istiod-lite/ca"
	"github.com/tulle-mesh/tulle/istiod-lite/snapshot"
)

// authorizeCounting lets waypoints have shares of rate limits.
func (a *App) authorizeCounting(ctx context.Context) (string, error) {
	caller, ok := ca.CallerFromContext(ctx)
	if !ok {
		return "", errors.New("the caller is not authenticated")
	}
	account := caller.Account()
	if a.backend.source.Objects() == nil || a.xds.Snapshot() == nil {
		return account, status.Error(codes.Unavailable, "the configuration is not read yet")
	}
	if len(a.scope(account).Aliases) == 0 {
		return account, fmt.Errorf("%s is not the account of a waypoint", account)
	}
	return account, nil
}

// permitted reports whether the account's waypoints count by a RateLimitPolicy.
func (a *App) permitted(account, policy string) bool {
	entry := a.xds.Snapshot().Sets[snapshot.WaypointRateLimitType].Entries[policy]
	if entry == nil {
		return false
	}
	return slices.ContainsFunc(a.scope(account).Aliases, func(alias string) bool { return slices.Contains(entry.Aliases, alias) })
}
