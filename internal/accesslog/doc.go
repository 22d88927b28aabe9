// Package accesslog writes one structured line per connection, in the format
// of Istio's node proxy.
//
// A finished connection is "connection complete", at info, or at error when it
// failed or was denied; an accepted one "connection opened" at debug; one that
// was refused before anything was known of it "connection failed" at warn.
// Levels are those of the logger named "access".
//
// Lines are formatted by the caller and written by one goroutine, in batches.
// Log owns that goroutine: Close writes what is queued and ends it. A reader of
// the log that stalls never stalls a connection: when the queue is full, lines
// are dropped and counted, and the log says how many are missing once there is
// room again.
//
// Writer is the queue and the goroutine without the format, for lines of others, and
// Line writes fields in this one.
//
//	log := accesslog.New(accesslog.Config{Output: os.Stdout, Logger: zapLogger})
//	defer log.Close()
//	log.Connection(accesslog.Entry{Direction: accesslog.Outbound, Source: src, …})
package accesslog
