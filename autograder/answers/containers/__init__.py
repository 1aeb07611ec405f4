"""Answers to lesson 4, *Containers*."""
