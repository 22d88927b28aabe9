package telemetry

// Version is the version of the binary, set by the linker; "dev" where it was not.
var Version = "dev"
