"""Answers to lesson 09, QEMU through QMP: one module per exercise."""
