"""`hymunet profile`: what networks cost, and how that grows with the image and with depth."""
