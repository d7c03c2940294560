"""`hymunet inspect`: what a model sees, lets through and remembers."""
