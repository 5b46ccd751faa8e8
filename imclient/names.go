package imclient

// nameOf returns the name of a value in a table of names, the first name if it has none.
func nameOf[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return names[0]
}

// valueOf returns the value of a name in a table of names. It reports false for an unknown
// name, and for "".
func valueOf[T ~uint8](names []string, name string) (v T, ok bool) {
	for i, n := range names {
		if n == name && n != "" {
			return T(i), true
		}
	}
	return 0, false
}
