"""A classifier of small images."""

from torch import nn


class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.1)
        )
        self.head = nn.Linear(8 * 16, classes)

    def forward(self, images):
        return self.head(self.body(images))
