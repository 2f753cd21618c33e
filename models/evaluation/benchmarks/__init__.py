"""The benchmarks of the house: a YAML file each, as `models.evaluation.benchmark.Benchmark` reads it."""
