// Command write draws the ten sample digits into the current folder.
package main

import (
	"fmt"
	"image/png"
	"os"

	"github.com/home-fhe/home/models/digits"
)

func main() {
	for d := range 10 {
		if err := write(d); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func write(d int) error {
	f, err := os.Create(fmt.Sprintf("%d.png", d))
	if err != nil {
		return err
	}
	if err := png.Encode(f, digits.Draw(d)); err != nil {
		return err
	}
	return f.Close()
}
