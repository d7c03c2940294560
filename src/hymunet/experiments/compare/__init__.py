"""`hymunet compare` and `hymunet ablate`: any network, trained and judged on the same footing."""
