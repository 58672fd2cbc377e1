// Package home is the root of HomE, a compiler and runtime that runs trained
// ONNX networks on encrypted data. It holds no code of its own: the command is
// cmd/home, and ARCHITECTURE.md shows the way data flows through the folders.
package home
