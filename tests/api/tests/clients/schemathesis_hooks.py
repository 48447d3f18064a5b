"""What Schemathesis may send."""

import schemathesis


@schemathesis.hook
def filter_case(context, case):
    """Leaves out headers that are not UTF-8: Spin answers those with an empty 500 before the application sees them."""
    return all(str(value).isascii() for value in (case.headers or {}).values())
