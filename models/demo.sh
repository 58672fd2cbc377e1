#!/bin/sh
# The whole way, once: compile a trained network, make keys, encrypt a picture of
# a digit, run the network on the ciphertext, decrypt, and compare with a plain
# run. Usage: models/demo.sh [DIGIT], from the root of the repository.
set -eu

digit=${1:-7}
name=mnist_cryptonet_square
models=models/$name
home=bin/home
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

step() { printf '\n== %s\n' "$1"; }

step "build"
"${GO:-go}" build -o $home ./cmd/home

step "compile $name.onnx into a plan (server) and its client part"
$home compile $models/$name.onnx -o "$work/digit.hplan" \
	--preprocess $models/preprocess.json --calibrate models/digits/varied-images.gz

step "client: make keys"
$home keygen "$work/digit.hclient" -o "$work/keys"

step "client: encrypt models/digits/$digit.png"
$home encrypt "$work/digit.hclient" --key "$work/keys/secret.hsk" --input "models/digits/$digit.png" -o "$work/x.hct"
ls -l "$work/x.hct" | awk '{ print $5, "bytes of ciphertext" }'

step "server: run the network on the ciphertext"
$home run "$work/digit.hplan" --keys "$work/keys/eval.hevk" --input "$work/x.hct" -o "$work/y.hct"

step "client: decrypt, beside a plain run of the same network"
$home run $models/$name.onnx --mode clear --preprocess $models/preprocess.json \
	--input "models/digits/$digit.png" -o "$work/plain.npy" > /dev/null
$home decrypt "$work/digit.hclient" --key "$work/keys/secret.hsk" --input "$work/y.hct" \
	--expect "$work/plain.npy" --top 10
printf '\npredicted digit: %s\n' "$($home decrypt "$work/digit.hclient" --key "$work/keys/secret.hsk" --input "$work/y.hct" --top 1 | awk '{ print $3 }')"
