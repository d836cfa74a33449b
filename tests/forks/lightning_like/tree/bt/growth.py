"""Grow a network; it computes the same as before."""
import torch

from .network import BitTransformerLM


def _remake(net, **changes):
    new = BitTransformerLM(**dict(net.config, **changes)).to(net.device)
    new.train(net.training)
    return new


def grow_length(net):
    new = _remake(net, max_seq_len=2 * net.config['max_seq_len'])
    weights = net.state_dict()
    weights['where.weight'] = weights['where.weight'].repeat(2, 1)
    new.load_state_dict(weights)
    return new


@torch.no_grad()
def grow_layers(net):
    old = net.config['num_layers']
    new = _remake(net, num_layers=2 * old)
    new.load_state_dict(net.state_dict(), strict=False)
    for layer in new.layers[old:]:
        for p in [*layer.attn.output.parameters(), *layer.fc2.parameters()]:
            p.zero_()
    return new


def grow_width(net):
    new = _remake(net, d_model=2 * net.config['d_model'], dim_feedforward=2 * net.config['dim_feedforward'])
    weights = {}
    for name, w in net.state_dict().items():
        if name in ('embed.weight', 'where.weight'):
            weights[name] = w.repeat_interleave(2, 1)
            continue
        if w.dim() == 2:
            w = w.repeat_interleave(2, 1).div(2)
        if 'attn.query' in name:
            w = w / 2**0.5
        if 'unembed' not in name:
            w = w.repeat_interleave(2, 0)
        weights[name] = w
    new.load_state_dict(weights)
    return new


GROWTH = {'length': grow_length, 'layers': grow_layers, 'width': grow_width}
