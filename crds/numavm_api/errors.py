"""The errors of NumaVM's own making, as one tree.

    NumaVMError
    ├── TransientError     the same call may work later: unreachable, timed out, busy
    ├── ConflictError      somebody else wrote first: read again and decide anew
    ├── RejectedError      a person must act: the spec, a permission or a pool forbids it
    └── HostFaultError     this host cannot do it, another one might

A loop reads only the class: Transient is tried again with backoff, Conflict at once, Rejected waits for a change, HostFault
moves the VM's claim elsewhere. Errors of libraries are turned into these where they are caught, with ``raise ... from``.
"""

from __future__ import annotations


class NumaVMError(Exception):
    """Base of all: its text names what was tried, on what, and why it failed."""


class TransientError(NumaVMError):
    """The same call may work later."""


class ConflictError(NumaVMError):
    """Somebody else wrote first."""


class RejectedError(NumaVMError):
    """A person must act before it can work."""


class HostFaultError(NumaVMError):
    """This host cannot do it."""
