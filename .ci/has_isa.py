"""Exits with 0 if this machine has the instruction set that the argument names."""

import sys

from moesaic.runtime import _native

sys.exit(sys.argv[1] not in _native.available_isas())
