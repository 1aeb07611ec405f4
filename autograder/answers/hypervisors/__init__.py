"""Answers to lesson 6, *Hypervisors*."""
