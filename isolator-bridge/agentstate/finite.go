package agentstate

import "bytes"

// The agent writes numbers that are not finite as Infinity, -Infinity and NaN
// (kWriteNanAndInfFlag in stout/jsonify.hpp), which is not JSON. GET_STATE has
// them for every task whose limits are infinite.
var notFinite = [][]byte{[]byte("-Infinity"), []byte("Infinity"), []byte("NaN")}

// finite replaces such numbers outside of strings by 0, in place.
func finite(data []byte) []byte {
	quoted := false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == 'I' || c == 'N' || c == '-'):
			i += blank(data[i:])
		}
	}
	return data
}

// blank replaces the number at the beginning and returns how many more bytes it
// has.
func blank(data []byte) int {
	for _, number := range notFinite {
		if bytes.HasPrefix(data, number) {
			data[0] = '0'
			for n := 1; n < len(number); n++ {
				data[n] = ' '
			}
			return len(number) - 1
		}
	}
	return 0
}
