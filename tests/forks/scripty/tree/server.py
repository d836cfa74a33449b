# xml-rpc in front of manager.py, for the notebook on the other machine (through ssh -L)
import sys
from xmlrpc.server import SimpleXMLRPCServer

import manager


def make_server(port):
    server = SimpleXMLRPCServer(("127.0.0.1", port), allow_none=True, logRequests=False)
    for f in (manager.init, manager.train, manager.train_step, manager.scale_up, manager.save, manager.download,
              manager.predict, manager.status):
        server.register_function(f)
    return server


if __name__ == "__main__":
    make_server(int(sys.argv[1]) if len(sys.argv) > 1 else 8800).serve_forever()
