"""The pictures in docs/, drawn from the CSVs of benchmarks/results/ and from nothing else."""
