"""A plain script: reads and writes entries of a group, and ends with a status that other scripts understand.

python script.py unix:/run/app/quorate.sock set foo bar
python script.py peer1@127.0.0.1:7001,peer2@127.0.0.1:7002 get foo
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from quorate import OutcomeUnknown, Rejected, Unavailable
from quorate.blocking import Client, connect
from quorate.machines import KV


def main() -> int:
    match sys.argv[1:]:
        case [addresses, "get", key]:
            return run(addresses, lambda kv: kv.read(KV.get, key))
        case [addresses, "set", key, value]:
            return run(addresses, lambda kv: kv.write(KV.set, key, value))
    print(__doc__, file=sys.stderr)
    return os.EX_USAGE


def run(addresses: str, call: Callable[[Client[KV]], str]) -> int:
    try:
        with connect(KV, *addresses.split(",")) as kv:
            print(call(kv))
    except Rejected as refused:
        print(refused, file=sys.stderr)
        return 1
    except Unavailable as error:  # nothing was written: try again later
        print(error, file=sys.stderr)
        return os.EX_TEMPFAIL
    except OutcomeUnknown as error:  # it may be there or not: look before you try again
        print(error, file=sys.stderr)
        return os.EX_SOFTWARE
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
