"""Model files to models."""
