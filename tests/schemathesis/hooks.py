"""What OpenAPI cannot say of a request: a field of a user stands in the query or in the body, and never in both."""

import schemathesis
from schemathesis import GenerationMode

GIVEN_BY_CLIENTS = {"create_user": {"name": "Jane", "email": "jane@example.com"}, "update_user": {"name": "Jane"}}


@schemathesis.hook
def map_case(context, case):
    """Makes of fields that each fit the description a request that does: what is given twice leaves the query, and what
    is missing joins it."""
    needed = GIVEN_BY_CLIENTS.get(case.operation.definition.raw.get("operationId"))
    if needed is None or case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return case
    body = case.body if isinstance(case.body, dict) else {}
    case.query = {field: value for field, value in (case.query or {}).items() if field not in body}
    given = case.query.keys() | body.keys()
    if case.operation.method.upper() == "POST" or not given:
        case.query.update({field: value for field, value in needed.items() if field not in given})
    return case
