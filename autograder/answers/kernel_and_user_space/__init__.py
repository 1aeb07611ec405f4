"""Answers to lesson 3, *Kernel and user space*."""
