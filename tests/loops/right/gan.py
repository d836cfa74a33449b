# right: GAN on a ring of points, two optimizers, fake detached for the critic's update
import math
import torch
import torch.nn as nn

torch.manual_seed(21)
nz, batch, n = 4, 32, 256
angle = torch.rand(n) * 2 * math.pi
points = torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(n, 2)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(points), batch_size=batch, shuffle=True)

netG = nn.Sequential(nn.Linear(nz, 32), nn.ReLU(), nn.Linear(32, 2))
netD = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
optD = torch.optim.Adam(netD.parameters(), lr=2e-3, betas=(0.5, 0.999))
optG = torch.optim.Adam(netG.parameters(), lr=1e-3, betas=(0.5, 0.999))
bce = nn.BCEWithLogitsLoss()
fixed = torch.randn(64, nz)

for epoch in range(6):
    for (real,) in loader:
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        # critic
        netD.zero_grad()
        lossD_real = bce(netD(real), ones)
        lossD_real.backward()
        fake = netG(torch.randn(len(real), nz))
        lossD_fake = bce(netD(fake.detach()), zeros)
        lossD_fake.backward()
        optD.step()
        # generator
        netG.zero_grad()
        lossG = bce(netD(fake), ones)
        lossG.backward()
        optG.step()
    with torch.no_grad():
        radius = netG(fixed).norm(dim=1).mean().item()
    print(f"{epoch} D {(lossD_real + lossD_fake).item():.3f} G {lossG.item():.3f} radius {radius:.3f}")
