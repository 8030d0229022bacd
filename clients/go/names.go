package aril

import "regexp"

// In Go `$` matches at the end only, not before a last line end.
var (
	jobIDPattern  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	workerPattern = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	namePattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
)

func isJobID(text string) bool  { return jobIDPattern.MatchString(text) }
func isWorker(text string) bool { return workerPattern.MatchString(text) }
func isKeyID(text string) bool  { return namePattern.MatchString(text) }
func isTenant(text string) bool { return text != "shared" && namePattern.MatchString(text) }
