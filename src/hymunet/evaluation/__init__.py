"""How good a prediction is: tables per case, their averages and strata, and a report to look at."""
