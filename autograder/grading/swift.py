"""nbgrader's own writing of marks, without what it does over and over.

For each submission nbgrader opens its gradebook nine times, each time with a new engine whose statements have to be
compiled again and whose tables are looked for again, and checks the schema of its metadata against the schema of
schemas for every cell. Within `swift` there is one engine for each gradebook, which looks for its tables once, and one
validator for each schema. What is written is the same.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def swift() -> Iterator[None]:
    """Have this process's nbgrader share engines and validators; they are let go of at the end of the block."""
    import sqlalchemy  # noqa: PLC0415 - nbgrader's
    from nbgrader import api  # noqa: PLC0415 - slow to import
    from nbgrader.nbgraderformat import common  # noqa: PLC0415 - slow to import

    jsonschema: Any = common.jsonschema
    engines: dict[str, Any] = {}
    complete: set[int] = set()
    make_tables = api.Base.metadata.create_all

    def engine(url: Any, **options: Any) -> Any:
        if str(url) not in engines:
            engines[str(url)] = sqlalchemy.create_engine(url, **options)
        return engines[str(url)]

    def make_tables_once(bind: Any, **options: Any) -> None:
        if id(bind) not in complete:
            make_tables(bind=bind, **options)
            complete.add(id(bind))

    @functools.cache
    def validator(schema: str) -> Any:
        parsed = json.loads(schema)
        kind = jsonschema.validators.validator_for(parsed)
        kind.check_schema(parsed)
        return kind(parsed)

    def validate(instance: Any, schema: Any) -> None:
        error = jsonschema.exceptions.best_match(validator(json.dumps(schema)).iter_errors(instance))
        if error is not None:
            raise error

    quick = mock.Mock(wraps=jsonschema, validate=validate)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(api, "create_engine", engine))
        stack.enter_context(mock.patch.object(api.Base.metadata, "create_all", make_tables_once))
        stack.enter_context(mock.patch.object(common, "jsonschema", quick))
        try:
            yield
        finally:
            for one in engines.values():
                one.dispose()
