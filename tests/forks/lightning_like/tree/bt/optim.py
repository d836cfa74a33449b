from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle_adamw(net, lr=1e-3, weight_decay=0.01, total_steps=100):
    """(optimizer, scheduler). Only weights of linear layers decay."""
    decayed, others = [], []
    for name, p in net.named_parameters():
        is_matrix = p.dim() > 1 and not name.startswith(('embed', 'where'))
        (decayed if is_matrix else others).append(p)
    optimizer = AdamW([{'params': decayed}, {'params': others, 'weight_decay': 0.0}], lr=lr, weight_decay=weight_decay)
    return optimizer, OneCycleLR(optimizer, lr, total_steps)
