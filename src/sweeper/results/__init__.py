"""What runs and studies left, read for people: signs, importance, the report. It trains nothing."""
