"""The node classes: schema and execute."""
