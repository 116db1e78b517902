"""What scripts/adaptation.py measures: where tasks come from, and the ways to adapt to them."""
