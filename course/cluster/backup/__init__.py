"""Backups of guests: archives, their making and restoring, retention, and jobs that run at their times."""
