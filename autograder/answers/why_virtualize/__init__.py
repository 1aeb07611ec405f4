"""Answers to lesson 01, why virtualize: one module per exercise."""
