"""Time and memory of scans, models and sizes."""
