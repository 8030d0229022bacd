package aril

import "regexp"

// sha256Chars is a SHA-256 in hexadecimal.
const sha256Chars = 64

// In Go `$` matches at the end only, not before a last line end.
var (
	jobIDPattern  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	workerPattern = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
	namePattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
)

func isJobID(text string) bool  { return jobIDPattern.MatchString(text) }
func isWorker(text string) bool { return workerPattern.MatchString(text) }
func isSHA256(text string) bool { return sha256Pattern.MatchString(text) }
func isKeyID(text string) bool  { return namePattern.MatchString(text) }
func isTenant(text string) bool { return text != "shared" && namePattern.MatchString(text) }
