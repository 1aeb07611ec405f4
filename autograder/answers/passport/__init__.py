"""Answers to the exercises of lesson 00, Passport."""
