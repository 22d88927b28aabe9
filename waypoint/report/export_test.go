package report

// Exporters counts what sends to collectors.
func (r *Reporter) Exporters() int {
	r.exports.mu.Lock()
	defer r.exports.mu.Unlock()
	return len(r.exports.logs) + len(r.exports.spans)
}
