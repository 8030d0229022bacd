"""What each worker has to do comes in; who holds which partitions leaves."""
