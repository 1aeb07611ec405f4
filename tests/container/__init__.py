"""Tests of containers in the guest and on the host."""
