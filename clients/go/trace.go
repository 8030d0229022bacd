package aril

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	traceParentPattern = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)
	traceStatePattern  = regexp.MustCompile(`^[\x20-\x7e]{1,512}$`)
)

// traceHeaders returns the headers of the trace that a job says it belongs to.
func traceHeaders(job *Job) ([]header, error) {
	if job.TraceParent == "" {
		if job.TraceState != "" {
			return nil, fmt.Errorf("%w: TraceState says nothing without a TraceParent", ErrBadJob)
		}
		return nil, nil
	}
	parts := traceParentPattern.FindStringSubmatch(job.TraceParent)
	if parts == nil || parts[1] == "ff" || strings.Trim(parts[2], "0") == "" || strings.Trim(parts[3], "0") == "" {
		return nil, fmt.Errorf("%w: TraceParent is not of the form 00-<32 hex>-<16 hex>-<2 hex>", ErrBadJob)
	}
	headers := []header{{"traceparent", []byte(job.TraceParent)}}
	if job.TraceState == "" {
		return headers, nil
	}
	if !traceStatePattern.MatchString(job.TraceState) {
		return nil, fmt.Errorf("%w: TraceState is not 1 to 512 characters of printable ASCII", ErrBadJob)
	}
	return append(headers, header{"tracestate", []byte(job.TraceState)}), nil
}
