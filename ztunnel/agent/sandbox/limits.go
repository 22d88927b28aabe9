package sandbox

const (
	// maxCgroup is the size in bytes of the longest /proc/PID/cgroup that is read:
	// some 15 hierarchies of version 1 with paths of up to 4096 bytes.
	maxCgroup = 64 << 10
	// maxStat is the size in bytes of the longest /proc/PID/stat: 52 numbers and a
	// name.
	maxStat = 4 << 10
	// nsfsMagic is NSFS_MAGIC of linux/magic.h: the file system that a network
	// namespace's file belongs to.
	nsfsMagic = 0x6e736673
)
