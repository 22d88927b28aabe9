package enrol

// DecodeRecord reads a state file, for its fuzz test.
func DecodeRecord(b []byte) error { _, err := decodeRecord(b); return err }
