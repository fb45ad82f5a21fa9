// SPDX-License-Identifier: GPL-2.0-or-later

// Allocates in a hundred goroutines, so that there is garbage to collect; ticks.
package main

import (
	"os"
	"time"
)

func allocate(n int) {
	kept := make(map[int][]byte)
	for i := 0; ; i++ {
		kept[i%64] = make([]byte, (i*n)%16384)
		if i%50 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func main() {
	for n := 1; n <= 100; n++ {
		go allocate(n)
	}
	for {
		os.Stdout.WriteString("tick\n")
		time.Sleep(5 * time.Millisecond)
	}
}
