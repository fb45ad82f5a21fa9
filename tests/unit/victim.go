// SPDX-License-Identifier: GPL-2.0-or-later

// A victim in Go: its main goroutine is bound to the main thread and busy on a
// stack of Go's own, others allocate, collect and talk through a pipe. It keeps
// its report in the file that it is given: steps, failures, text. With another
// argument there is no other goroutine, so that its main thread is next to never
// on the stack that the kernel made.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"unsafe"
)

type report struct {
	steps    uint64
	failures uint64
	beats    uint64 // of the other goroutines
	text     [256]byte
}

type node struct {
	next  *node
	value uint64
	room  [5]uint64
}

var self *report

func init() {
	runtime.LockOSThread()
}

func complain(format string, args ...interface{}) {
	if atomic.AddUint64(&self.failures, 1) == 1 {
		copy(self.text[:255], fmt.Sprintf(format, args...))
	}
}

func next(x uint64) uint64 {
	x ^= x << 13
	x ^= x >> 7
	return x ^ x<<17
}

// A list that the collector walks while it is built, and that is then read.
func allocate() {
	for seed := uint64(1); ; seed++ {
		var list *node
		x := seed
		for i := 0; i < 2000; i++ {
			x = next(x)
			list = &node{next: list, value: x}
		}
		var sum, want uint64
		for ; list != nil; list = list.next {
			sum += list.value
		}
		for i, y := 0, seed; i < 2000; i++ {
			y = next(y)
			want += y
		}
		if sum != want {
			complain("a list changed")
		}
		atomic.AddUint64(&self.beats, 1)
	}
}

func collect() {
	for {
		runtime.GC()
	}
}

func talk() {
	r, w, err := os.Pipe()
	if err != nil {
		complain("pipe: %v", err)
		return
	}
	buf := make([]byte, 1)
	for i := byte(0); ; i++ {
		if _, err := w.Write([]byte{i}); err != nil {
			complain("write: %v", err)
		}
		if _, err := r.Read(buf); err != nil || buf[0] != i {
			complain("read: %v", err)
		}
	}
}

// Deep enough for the stack to be moved while it grows.
func descend(n int, x uint64) uint64 {
	var room [64]uint64
	room[n%64] = x
	if n == 0 {
		return room[0]
	}
	return descend(n-1, next(x)) + room[n%64]
}

func main() {
	file, err := os.OpenFile(os.Args[1], os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	mem, err := syscall.Mmap(int(file.Fd()), 0, 4096,
		syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	file.Close()
	self = (*report)(unsafe.Pointer(&mem[0]))
	debug.SetGCPercent(20)
	if len(os.Args) < 3 {
		go allocate()
		go collect()
		go talk()
	}

	want := descend(100, 1)
	for {
		x := uint64(1)
		for i := 0; i < 1000000; i++ {
			x = next(x)
		}
		if x != 0xa2261388b6f4c14e {
			complain("arithmetic")
		}
		if descend(100, 1) != want {
			complain("a stack changed")
		}
		atomic.AddUint64(&self.steps, 1)
	}
}
