package hpack

// staticField is an entry of the static table.
type staticField struct{ name, value string }

// staticTable is that of RFC 7541, appendix A; its indexes begin at 1.
var staticTable = [...]staticField{
	{},
	{":authority", ""},
	{":method", "GET"},
	{":method", "POST"},
	{":path", "/"},
	{":path", "/index.html"},
	{":scheme", "http"},
	{":scheme", "https"},
	{":status", "200"},
	{":status", "204"},
	{":status", "206"},
	{":status", "304"},
	{":status", "400"},
	{":status", "404"},
	{":status", "500"},
	{"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"},
	{"accept-language", ""},
	{"accept-ranges", ""},
	{"accept", ""},
	{"access-control-allow-origin", ""},
	{"age", ""},
	{"allow", ""},
	{"authorization", ""},
	{"cache-control", ""},
	{"content-disposition", ""},
	{"content-encoding", ""},
	{"content-language", ""},
	{"content-length", ""},
	{"content-location", ""},
	{"content-range", ""},
	{"content-type", ""},
	{"cookie", ""},
	{"date", ""},
	{"etag", ""},
	{"expect", ""},
	{"expires", ""},
	{"from", ""},
	{"host", ""},
	{"if-match", ""},
	{"if-modified-since", ""},
	{"if-none-match", ""},
	{"if-range", ""},
	{"if-unmodified-since", ""},
	{"last-modified", ""},
	{"link", ""},
	{"location", ""},
	{"max-forwards", ""},
	{"proxy-authenticate", ""},
	{"proxy-authorization", ""},
	{"range", ""},
	{"referer", ""},
	{"refresh", ""},
	{"retry-after", ""},
	{"server", ""},
	{"set-cookie", ""},
	{"strict-transport-security", ""},
	{"transfer-encoding", ""},
	{"user-agent", ""},
	{"vary", ""},
	{"via", ""},
	{"www-authenticate", ""},
}

// staticNames finds the first entry of a name, by the hash of Encoder.
var staticNames = buildStaticNames()

// staticSlots is a power of two, so large that nearly all names have a slot of their own.
const staticSlots = 256

func buildStaticNames() (slots [staticSlots]uint8) {
	for i := len(staticTable) - 1; i > 0; i-- {
		name := staticTable[i].name
		if staticTable[i-1].name == name {
			continue // not the first of its name
		}
		at := hash(name) % staticSlots
		for slots[at] != 0 {
			at = (at + 1) % staticSlots
		}
		slots[at] = uint8(i)
	}
	return slots
}

// staticName returns the index of the first entry of that name, 0 without one.
func staticName(name string, h uint64) int {
	for at := h % staticSlots; ; at = (at + 1) % staticSlots {
		i := int(staticNames[at])
		if i == 0 || staticTable[i].name == name {
			return i
		}
	}
}
