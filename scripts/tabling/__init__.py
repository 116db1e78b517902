"""The tables that scripts/tables.py puts into the pages, by what their records are of."""
