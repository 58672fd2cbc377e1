//go:build !linux

package store

import "errors"

func attachDevice(string, bool) (Device, error) {
	return nil, errors.New("devices of persistent memory need Linux")
}
