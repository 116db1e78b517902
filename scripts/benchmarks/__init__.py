"""What `scripts/benchmark.py` measures, one file per question and one per kind of system."""
