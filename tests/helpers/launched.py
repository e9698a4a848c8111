"""What torchrun starts in the tests: `launched.py FAULTS WORDS...` is `nayer WORDS...` with FAULTS, a JSON list."""

import json
import sys

from peers import Fault, command

if __name__ == "__main__":
    command(sys.argv[2:], *(Fault(**fault) for fault in json.loads(sys.argv[1])))
