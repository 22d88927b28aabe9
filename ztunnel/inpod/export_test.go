package inpod

// SetForeignPorts bounds the ports that d chooses for foreign sources.
func SetForeignPorts(d *Dialer, lowest, highest uint16) { d.minPort, d.maxPort = lowest, highest }
