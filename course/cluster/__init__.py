"""The lab cluster: three nodes that answer as Proxmox VE does, with real machines behind them.

What is here so far needs no server: identifiers, files, rights, names of volumes, schedules and parameter checks, each
in Proxmox VE's own formats and words. Nobody has run it against a live Proxmox VE: it follows the public schema,
recorded traffic and the regression vectors of the Proxmox projects, which the tests read where they are present.
"""
