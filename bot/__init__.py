"""What the product does with one mention or one direct message."""
