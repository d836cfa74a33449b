"""The service over lines of JSON: {"do": "create", "text": ...} on stdin, an answer a line on stdout."""
import json
import sys

from bitnet.service import Service


def answer(service, asked):
    match asked.pop("do", None):
        case "create" | "grow" | "load" | "save" | "train" | "status" as name:
            return {"result": getattr(service, name)(**asked), "status": service.status()}
        case other:
            return {"error": f"cannot {other!r}"}


def main(lines=sys.stdin):
    service = Service()
    for line in lines:
        try:
            said = answer(service, json.loads(line))
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
