"""What scripts/compare.py compares: works, systems, and how each is trained and scored."""
