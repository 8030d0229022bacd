package aril

import "encoding/binary"

// murmur2 is the hash of Kafka's Java client, which shows the same bits signed.
func murmur2(data []byte) uint32 {
	const (
		multiplier = 0x5bd1e995
		seed       = 0x9747b28c
	)
	state := seed ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		word := binary.LittleEndian.Uint32(data) * multiplier
		word ^= word >> 24
		state = state*multiplier ^ word*multiplier
	}
	if len(data) > 0 {
		for at, each := range data {
			state ^= uint32(each) << (8 * at)
		}
		state *= multiplier
	}
	state ^= state >> 13
	state *= multiplier
	return state ^ state>>15
}

// partitionOf returns the partition of a job in a topic of so many: what Kafka's default
// partitioner makes of the key.
func partitionOf(job string, partitions int32) int32 {
	return int32(murmur2([]byte(job))&0x7fffffff) % partitions
}
