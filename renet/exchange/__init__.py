"""Networks and weights as other programs know them."""
