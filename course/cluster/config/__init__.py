"""Proxmox VE's own files: read, written as it writes them, and never half written.

- `files`: reading with a digest, atomic writing, the clash of two writers.
- `guest`: ``qemu-server/169.conf`` and ``lxc/200.conf`` with pending changes and snapshots.
- `sections`: ``storage.cfg``, ``ha/*.cfg``, ``jobs.cfg``.
- `firewall`: ``*.fw``.
- `users`: ``user.cfg``; what its rights mean is `course.cluster.access`'s.
"""
