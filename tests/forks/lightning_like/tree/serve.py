"""The manager over TCP: a line of JSON in, a line of JSON out.

    {"do": "init", "with": {"d_model": 64, "nhead": 4}}
    {"do": "train_step", "with": {"text": "..."}}
"""
import json
import socketserver
import sys

from bt.manager import ModelManager

OPERATIONS = {'init', 'train_step', 'scale_up', 'save', 'download', 'infer', 'status'}


def respond(manager, line):
    try:
        request = json.loads(line)
        if request['do'] not in OPERATIONS:
            return {'error': 'unknown operation'}
        return getattr(manager, request['do'])(**request.get('with', {}))
    except Exception as error:
        return {'error': '%s: %s' % (type(error).__name__, error)}


def main(port=7077):
    manager = ModelManager()

    class Handler(socketserver.StreamRequestHandler):

        def handle(self):
            for line in self.rfile:
                self.wfile.write(json.dumps(respond(manager, line)).encode() + b'\n')

    with socketserver.ThreadingTCPServer(('127.0.0.1', port), Handler) as server:
        server.serve_forever()


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
