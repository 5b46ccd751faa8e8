package config

import (
	"reflect"
	"slices"
	"time"
)

// Changes returns the settings in which two configurations differ, in file order:
// "log.level", "apps.main.tencent.presence_rate". A section that exists in only one
// of them is named as a whole: "jobs.nightly". Values are not included.
func Changes(a, b *Config) []string {
	return changes(reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem(), "")
}

func changes(a, b reflect.Value, path string) []string {
	var changed []string
	others := fields(b)
	for i, f := range fields(a) {
		inner, other := join(path, f.key), others[i].value
		switch kindOf(f.value) {
		case reflect.Struct:
			changed = append(changed, changes(f.value, other, inner)...)
		case reflect.Pointer:
			if f.value.IsNil() || other.IsNil() {
				if f.value.IsNil() != other.IsNil() {
					changed = append(changed, inner)
				}
				continue
			}
			changed = append(changed, changes(f.value.Elem(), other.Elem(), inner)...)
		case reflect.Slice:
			changed = append(changed, listChanges(f.value, other, inner)...)
		default:
			if !same(f.value, other) {
				changed = append(changed, inner)
			}
		}
	}
	return changed
}

// listChanges compares lists of sections by the sections' names.
func listChanges(a, b reflect.Value, path string) []string {
	var changed []string
	named := func(list reflect.Value) (names []string, byName map[string]reflect.Value) {
		byName = make(map[string]reflect.Value)
		for i := range list.Len() {
			name := list.Index(i).FieldByName("Name").String()
			names, byName[name] = append(names, name), list.Index(i)
		}
		return names, byName
	}
	before, inA := named(a)
	after, inB := named(b)
	for _, name := range before {
		if item, ok := inB[name]; ok {
			changed = append(changed, changes(inA[name], item, join(path, name))...)
		} else {
			changed = append(changed, join(path, name))
		}
	}
	for _, name := range after {
		if !slices.Contains(before, name) {
			changed = append(changed, join(path, name))
		}
	}
	return changed
}

// same reports whether two settings are equal; time zones are compared by name.
func same(a, b reflect.Value) bool {
	zone, ok := a.Interface().(*time.Location)
	if ok {
		return zone.String() == b.Interface().(*time.Location).String()
	}
	return a.Interface() == b.Interface()
}
