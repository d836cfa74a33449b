# right: a policy's gradient: log-probabilities times returns, summed over an episode; no loss function of torch
import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(5)
policy = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
for episode in range(15):
    spoken, rewards = [], []
    for _ in range(10):
        seen = torch.randn(1, 4)
        chosen = Categorical(logits=policy(seen))
        action = chosen.sample()
        spoken.append(chosen.log_prob(action))
        rewards.append(float(action.item() == (seen[0, 0] > 0).item()))
    later = torch.tensor([sum(0.9 ** (k - n) * rewards[k] for k in range(n, 10)) for n in range(10)])
    later = (later - later.mean()) / (later.std() + 1e-6)
    loss = torch.cat([-each * value for each, value in zip(spoken, later)]).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
