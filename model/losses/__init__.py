"""What the methods minimise."""
