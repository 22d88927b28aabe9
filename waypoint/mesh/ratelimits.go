package mesh

import (
	"fmt"
	"maps"

	"go.uber.org/zap"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
	"github.com/tulle-mesh/tulle/waypoint/ratelimit"
)

// RateLimitType is the resource type of rate limits, which waypoints subscribe to by
// Alias.
const RateLimitType = "type.googleapis.com/tulle.waypoint.RateLimit"

// Limiter counts by the rate limits of the mesh.
func (m *Mesh) Limiter() *ratelimit.Limiter { return m.cfg.Limiter }

// RateLimit returns the rate limit "namespace/name", nil when there is none (any more).
func (m *Mesh) RateLimit(name string) *ratelimit.Policy { return (*m.limits.Load())[name] }

// RateLimitHandler takes rate limits. One that cannot be named is rejected; one that is
// not understood counts nothing, and its requests pass or not as it says itself.
func (m *Mesh) RateLimitHandler() xdsclient.Handler {
	return xdsclient.HandlerFunc(func(d xdsclient.Delta) []xdsclient.Rejection {
		rejections, old := m.putRateLimits(d)
		// Not under mu: it waits for backends to end, which may be connecting through
		// the mesh.
		for _, x := range old {
			m.cfg.Limiter.Retire(x.policy, x.next)
		}
		return rejections
	})
}

// retired is a policy that is in force no more, and the one in its place, if any.
type retired struct{ policy, next *ratelimit.Policy }

// putRateLimits puts rate limits in force, and returns those that they replace.
func (m *Mesh) putRateLimits(d xdsclient.Delta) (rejections []xdsclient.Rejection, old []retired) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := maps.Clone(*m.limits.Load())
	for _, r := range d.Resources {
		var in api.RateLimit
		err := unpack(r, &in)
		if own := in.GetNamespace() + "/" + in.GetName(); err == nil && own != r.Name {
			err = fmt.Errorf("it calls itself %s", own)
		}
		if err != nil {
			rejections = append(rejections, xdsclient.Rejection{Name: r.Name, Err: err})
			continue
		}
		before := next[r.Name]
		next[r.Name] = m.cfg.Limiter.Compile(&in, before)
		if fault := next[r.Name].Fault(); fault != nil {
			m.log.Warn("rate limit counts nothing", zap.String("policy", r.Name), zap.Error(fault))
		}
		old = append(old, retired{before, next[r.Name]})
		if service := in.GetBackend().GetRls().GetBackend().GetService(); service != "" {
			m.want("rate limit "+r.Name, service)
		} else {
			m.want("rate limit " + r.Name)
		}
	}
	for _, name := range d.Removed {
		old = append(old, retired{next[name], nil})
		delete(next, name)
		m.want("rate limit " + name)
	}
	m.limits.Store(&next)
	return rejections, old
}
