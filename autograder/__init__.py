"""What students never get: hidden checks, wrong and right answers, the grading plugin."""
