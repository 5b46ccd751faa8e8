package imclient

import (
	"fmt"
	"runtime/debug"
)

// PanicError is a recovered panic, a bug in this program.
type PanicError struct {
	Value any
	Stack []byte
}

// Error returns the panic's value without the stack, which is for the log only.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Guard calls f and returns a *PanicError if it panics, so that the process continues. It
// does not cover goroutines that f starts.
func Guard(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	return f()
}
