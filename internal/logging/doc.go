// Package logging makes the loggers of all binaries: zap, written as one line
// an entry, either as tab-separated text (RFC 3339 time, level, logger name,
// message, key=value fields) or as JSON. The levels can be changed while the
// process runs, for all loggers or for one logger name and those below it.
//
//	log, levels := logging.New(logging.Config{Format: "text", Level: "info", Output: os.Stderr})
//	log.Named("xds").Info("connected", zap.String("address", addr))
//	err := levels.Set("xds:debug")
package logging
