package sockdiag

// Decode reads a message of the kernel, for its tests.
var Decode = decode
