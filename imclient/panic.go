package imclient

import (
	"fmt"
	"runtime/debug"
)

// PanicError is a panic that was caught: a mistake in this program.
type PanicError struct {
	Value any
	Stack []byte
}

// Error leaves the stack out: errors are stored and shown, and it is for the log.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Guard makes an error of a panic of f, so that the process and its other work
// go on. It holds for the goroutine that f is called in, not for those that it
// starts.
func Guard(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	return f()
}
