"""Child process: the broker of the iotcore wheel on one loopback port; it ends when its standard input closes.

It speaks MQTT 3.1.1 on this port and has no access control: good enough to see the loop, never for a fleet.
"""

import logging
import os
import sys
import threading


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve until the parent goes away."""
    from iotcore.iotcore import IotCoreBroker

    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)  # it logs every packet as an error
    threading.Thread(target=_end_with_parent, daemon=True).start()
    IotCoreBroker(listen="127.0.0.1", port=int(sys.argv[1])).run_forever()


if __name__ == "__main__":
    main()
