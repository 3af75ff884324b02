"""What `house_figures.py` counts."""
