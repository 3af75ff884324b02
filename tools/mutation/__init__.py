"""What `mutate.py` works with."""
