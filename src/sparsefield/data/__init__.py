"""What comes in and what is asked for: observations, queries, data sets."""
