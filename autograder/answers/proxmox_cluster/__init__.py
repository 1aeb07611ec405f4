"""Answers to the exercises of lesson 11, the Proxmox cluster."""
