package jwt

import (
	"hash/maphash"
	"sync"
)

// cacheKey says by which rule and which of its keys a token was verified. Two rules
// may name the same issuer and different keys.
type cacheKey struct {
	token string
	rule  *rule
	keys  *keySet
}

// cache remembers verified tokens. Each shard has two generations: what is asked for
// moves to the younger, and the older goes when the younger is full.
type cache struct {
	seed   maphash.Seed
	shards [shards]shard
}

type shard struct {
	mu         sync.Mutex // guards what follows
	young, old map[cacheKey]*Token
	bytes      int // of young
}

func newCache() *cache { return &cache{seed: maphash.MakeSeed()} }

func (c *cache) shard(token string) *shard {
	return &c.shards[maphash.String(c.seed, token)%shards]
}

func (c *cache) get(k cacheKey) *Token {
	s := c.shard(k.token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.young[k]; t != nil {
		return t
	}
	t := s.old[k]
	if t != nil {
		delete(s.old, k)
		s.put(k, t)
	}
	return t
}

func (c *cache) put(k cacheKey, t *Token) {
	s := c.shard(k.token)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(k, t)
}

func (s *shard) put(k cacheKey, t *Token) {
	if s.young == nil {
		s.young = map[cacheKey]*Token{}
	}
	s.young[k] = t
	s.bytes += tokenCost * len(k.token)
	if len(s.young) >= shardSize || s.bytes >= shardBytes {
		s.old, s.young, s.bytes = s.young, nil, 0
	}
}
