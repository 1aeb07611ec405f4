"""Proxmox VE's own files: read, written as it writes them, and never half written.

- `files`: reading with a digest, atomic writing, the clash of two writers.
- `guest`: ``qemu-server/169.conf`` and ``lxc/200.conf`` with pending changes and snapshots.
- `sections`: ``storage.cfg``, ``ha/*.cfg``, ``jobs.cfg``.
- `firewall`: ``*.fw``.

``user.cfg`` is read and written by `course.cluster.access`, which gives its lines their meaning.
"""
