"""What can go wrong in the lab, as errors whose text is meant for the person at the keyboard.

    NumaVMError (numavm_api)
    └── LabError
        ├── MissingPrerequisiteError   something of this machine is not there, and how to get it
        └── ProcessFailedError         a process of the lab ended, or never became ready

The command line prints the text in one piece and no traceback.
"""

from numavm_api.errors import NumaVMError


class LabError(NumaVMError):
    """Something the lab needs did not work; the text says what, and what to do."""


class MissingPrerequisiteError(LabError):
    """A program or file of this machine is missing or too old; the text says how to get it."""


class ProcessFailedError(LabError):
    """A process ended early, did not become ready or did not end; the text names its log."""
