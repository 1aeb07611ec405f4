"""Answers to lesson 8, *Hardware-assisted virtualization*."""
