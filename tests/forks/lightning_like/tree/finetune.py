"""Fine-tune saved weights on pairs: a JSON list [prompt, answer] a line."""
import argparse
import json

import torch

from bt import BitTransformerLM
from bt.finetune import FineTuner


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--weights', required=True)
    p.add_argument('--pairs', required=True)
    p.add_argument('--save', default=None)
    p.add_argument('--epochs', type=int, default=1)
    p.add_argument('--lr', type=float, default=2e-4)
    args = p.parse_args()

    saved = torch.load(args.weights, weights_only=True)
    net = BitTransformerLM(**saved['config'])
    net.load_state_dict(saved['net'])
    with open(args.pairs, encoding='utf-8') as f:
        pairs = [json.loads(line) for line in f]
    losses = FineTuner(net, epochs=args.epochs, lr=args.lr).run(pairs)
    print('%d updates, loss %.4f -> %.4f' % (len(losses), losses[0], losses[-1]))
    if args.save:
        torch.save({'config': net.config, 'net': net.state_dict()}, args.save)


if __name__ == '__main__':
    main()
