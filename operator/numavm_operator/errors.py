"""The operator's own branches of NumaVM's error tree (`numavm_api.errors`).

NumaVMError
├── TransientError
├── ConflictError
│   └── GoneError          410: a paged list or a watch is too old, start it over
├── RejectedError
│   └── NotFoundError      404: the object is not there
└── NotLeaderError         another operator leads, or may: nothing may be written any more
"""

from __future__ import annotations

from numavm_api.errors import ConflictError, NumaVMError, RejectedError


class GoneError(ConflictError):
    """The resourceVersion or continue token is too old for the API server."""


class NotFoundError(RejectedError):
    """The object, or its kind, is not on the API server."""


class NotLeaderError(NumaVMError):
    """The leadership's deadline has passed, or was never had."""
