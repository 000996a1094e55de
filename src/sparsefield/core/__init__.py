"""What everything rests on: errors, files, devices."""
