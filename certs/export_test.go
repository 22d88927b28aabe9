package certs

import "os"

// Disk is the seam at which tests let the process die between two steps.
type Disk interface {
	Create(path string, mode os.FileMode) (DiskFile, error)
	Rename(from, to string) error
	SyncDir(path string) error
}

// DiskFile is a file of a Disk.
type DiskFile = diskFile

type testDisk struct{ Disk }

func (d testDisk) Create(path string, mode os.FileMode) (diskFile, error) {
	return d.Disk.Create(path, mode)
}

// WithDisk returns cfg writing through d.
func WithDisk(cfg AuthorityConfig, d Disk) AuthorityConfig {
	cfg.disk = testDisk{d}
	return cfg
}
