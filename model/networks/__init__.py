"""Networks that the methods are built from."""
