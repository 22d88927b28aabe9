package ratelimit

import "time"

const (
	// maxKeys bounds the keys that a waypoint counts in memory, all rules together:
	// issue and users ask for 100,000, which are about 25 MB.
	maxKeys = 100_000
	// shards of the keys, a power of two: far more than cores, so that requests of
	// different keys rarely wait for each other.
	shards = 64
	// spillSlots of a shard hold what is left of keys that had to make place: 8 bytes
	// each, 512 KiB in all when every shard has had to.
	spillSlots = 1024
	// victims are looked at for one to take out: enough to find an idle one when one in
	// three is, with a chance of 96 %.
	victims = 8

	// maxAmounts of one rule. The policy's schema has the same bound.
	maxAmounts = 4
	// maxKeyBytes of one key; longer ones are cut to a hash, so that a client cannot fill
	// memory with one header.
	maxKeyBytes = 512
	// maxUnits bounds the units of a bucket: two of them still add up in 64 bits.
	maxUnits = 1 << 62
	// maxRemoteUnits does so for scripts of Redis, whose numbers are exact up to 2^53, with
	// the overdraft.
	maxRemoteUnits = 1 << 49
	// maxOverdraft bounds what costs of responses may take beyond a bucket, in buckets:
	// one answer must not shut a client out for longer than ten times its limit.
	maxOverdraft = 10
	// maxCost of one request: the schema's bound of a limit.
	maxCost = 1_000_000_000

	// defaultTimeout of counting at a backend.
	defaultTimeout = 50 * time.Millisecond

	// maxDemands of one report, about: 64 bytes each and the rule's name stay below what
	// the control plane takes in one message.
	maxDemands = 4096
	// leaseRetryMin and leaseRetryMax bound the waits between attempts to reach the control
	// plane; leaseFarewell is how long a waypoint that ends waits for it to take note.
	leaseRetryMin = 100 * time.Millisecond
	leaseRetryMax = 5 * time.Second
	leaseFarewell = time.Second

	// fullShare is the whole of a limit, in the unit of shares.
	fullShare = 1 << 16
)
