"""Language models over bits."""
