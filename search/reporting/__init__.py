"""What a search tells: reports, tables, curves, and the live feed."""
