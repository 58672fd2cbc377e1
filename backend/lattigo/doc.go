// Package lattigo is the encrypted backend: residue number system CKKS over the
// rings of Lattigo v5, and the sole importer of Lattigo. It offers an Engine
// that executes scheme steps over caller-owned memory, and the client's and
// server's roles: secret keys, evaluation-key sets, ciphertext files.
//
// # Layout of objects
//
// An object of level l is a list of limbs of N words of 64 bits, one limb per
// prime, every limb in the number-theoretic domain with entries below its
// prime. With nP special primes:
//
//	ct      c0 mod q0..ql, c1 mod q0..ql
//	ctqp    c0 mod q0..ql, c0 mod p0.., c1 mod q0..ql, c1 mod p0..
//	digits  digit by digit: mod q0..ql, mod p0..
//	pt      mod q0..ql; Montgomery form
//	ptqp    mod q0..ql, mod p0..; Montgomery form
//	key     digit by digit: b mod q0..ql, b mod p0.., a mod q0..ql, a mod p0..;
//	        Montgomery form
//	sparsekey
//	        b mod q0, b mod p0, a mod q0, a mod p0; Montgomery form
//
// Montgomery form is times 2^52 for primes below 2^50, times 2^64 for others.
//
// A ciphertext (c0, c1) decrypts to c0 + c1*s. Digit d of a gadget decomposition
// groups the primes d*nP .. (d+1)*nP-1 of Q, and digit d of a key for the secret
// s' -> s holds b = -a*s + e + P*s' on the primes of the group and b = -a*s + e on
// all others (the hybrid key switching of Han and Ki, CT-RSA 2020). A key made
// for level L therefore serves every level l <= L: its first digits, restricted
// to q0..ql and P, are a key for l.
//
// A Galois key for a rotation by k switches from s to phi^-1(s), phi being the
// automorphism X -> X^(5^k): the key switch comes first, the automorphism is
// applied to its result, so that one decomposition serves many rotations
// (hoisting; Bossuat et al., EUROCRYPT 2021). Complex conjugation is the
// automorphism X -> X^-1, its key is made in the same way.
//
// While its modulus is raised, a ciphertext stands under an ephemeral secret of
// weight 32, which follows from the main one (sparse-secret encapsulation; Bossuat
// et al., ePrint 2022/024). What is encrypted under the ephemeral secret exists
// modulo q0*p0 and nowhere else: the sparse key, which holds the main secret times
// p0. The way back is a common key, which holds the ephemeral secret under the main
// one.
package lattigo
