package runtime

// maxrssUnit: Darwin counts the maximum resident set in bytes.
const maxrssUnit = 1
