"""The paper's claims as measurements: networks compared, profiled, and looked into.

`compare` (with ablations), `profile` and `inspect` are a package each and know nothing of one
another; how passes are timed and their memory is measured lies beside them and is shared.
"""
