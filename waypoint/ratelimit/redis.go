package ratelimit

import api "github.com/tulle-mesh/tulle/api/waypoint"

func (l *Limiter) redis(*api.RedisBackend) (remote, func()) { return nil, func() {} }
