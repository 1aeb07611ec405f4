"""A pytest plugin, loaded before all others: saves a second per process.

jsonschema compiles a grammar for IRI formats on import, which no notebook needs; it does without when that module is
absent.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
