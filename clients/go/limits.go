package aril

import "math"

// The bounds of the wire contract that a client has to know; schemas/limits.py has their reasons.
const (
	version = 1

	maxRequestBytes = 1_000_000
	maxReplyBytes   = 1_000_000

	// Of a record's shape: what is nested how deep, maps, arrays and strings, maps and arrays among
	// them, what these hold together, fields of one map.
	maxDepth      = 16
	maxParts      = 8_192
	maxContainers = 2_560
	maxElements   = 262_144
	maxMapFields  = 64

	maxTokensPerRecord      = 1_024
	maxTokenID              = math.MaxInt32
	maxIndex                = math.MaxInt32
	maxEpochPart            = 1<<53 - 1
	maxLogprobs             = 20
	maxPromptLogprobNumbers = 32_768
	maxMixedAdapters        = 4
	maxEarlierBases         = 8
	maxMetadataEntries      = 16
	maxRetryAfterMS         = 86_400_000

	// In Unicode characters.
	maxReplyTextChars     = 200_000
	maxReplyNameChars     = 256
	maxErrorMessageChars  = 500
	maxGivenChars         = 256
	maxMetadataKeyChars   = 64
	maxMetadataValueChars = 512
)
