"""From lesson texts to notebooks: parse, expand, execute, release, publish (the authors' tool; not in the wheel).

::

    course/lessons/NN-slug.md ──text──▶ cells ──expand──▶ nbgrader metadata, ids
                    ──execute──▶ source/NN-slug/NN-slug.ipynb
                    ──nbgrader─▶ release/en/NN-slug/NN-slug.ipynb
                    ──publish──▶ the student bundle

Every step is a function of its input: a second run changes no byte. Outputs are *sticky*: a new run whose outputs
differ only in what `tests/notebooks/sanitize.cfg` calls volatile keeps the old bytes.
"""

from __future__ import annotations
