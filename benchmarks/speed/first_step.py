"""A fresh process for `start.py`: distill the digits up to the first student step, and tell when what happened."""

import json
import os
import sys
import time
from typing import Any

marks = {"python": time.time()}


def listen(record: dict[str, Any]) -> None:
    """Note the time of each event; end the process after the first student step."""
    torch = sys.modules["torch"]
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    marks.setdefault(record.get("phase", record["event"]), time.time())
    if record["event"] == "progress" and record["phase"] == "student":
        print(json.dumps({**marks, "processor": time.process_time()}), flush=True)
        os._exit(0)


def main() -> None:
    from nayer_cli.runs.distill import distill

    marks["import"] = time.time()
    distill(json.loads(sys.argv[1]), listen=listen)


if __name__ == "__main__":
    main()
