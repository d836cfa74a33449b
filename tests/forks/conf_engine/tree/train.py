"""python train.py train.epochs=3 model.width=256 data.path=wiki.txt"""
import random
import sys

import torch

from bitnet.data.corpus import Corpus
from bitnet.engine import Engine, GateCallback, History, Progress
from bitnet.nn import BitTransformerLM
from bitnet.safety import Gate, TrainingStopped
from settings import compose


def run(conf):
    torch.manual_seed(conf["train"]["seed"])
    random.seed(conf["train"]["seed"])
    model = BitTransformerLM(**conf["model"]).to(conf["train"]["device"])
    train, held = Corpus(conf["data"]["path"], conf["model"]["max_len"]).split(conf["data"]["held_out"])
    gate, history = Gate(**conf["gate"]), History()
    engine = Engine(model, conf, [history, Progress(), GateCallback(gate)])
    try:
        engine.fit(train, held)
    except TrainingStopped as stop:
        print(f"stopped: {stop}")
    if conf["train"]["out"]:
        torch.save({"conf": conf, "weights": model.state_dict(), "gate": gate.state()}, conf["train"]["out"])
    return history


if __name__ == "__main__":
    run(compose(sys.argv[1:]))
