"""PyTorch in a process of its own: networks with torchvision's modules and names, at random, and what they answer.

Called with PyTorch's folder, a network's name and the .npz to write its state dict into. Beside that comes another with
`image` (0..1; R, G, B) and `scores`.
"""

from __future__ import annotations

import sys

WIDTH, CLASSES, SIZE = 8, 5, (67, 90)


def main(torch_folder: str, name: str, out: str) -> None:
    """Write the file."""
    sys.path.append(torch_folder)
    import numpy as np
    import torch
    from torch import nn

    def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
        pad = dilation * (kernel // 2)
        return nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, bias=False)

    class Bottleneck(nn.Module):
        def __init__(self, inputs: int, planes: int, stride: int, dilation: int, first: bool) -> None:
            super().__init__()
            self.conv1, self.bn1 = convolution(inputs, planes, 1), nn.BatchNorm2d(planes)
            self.conv2, self.bn2 = convolution(planes, planes, 3, stride, dilation), nn.BatchNorm2d(planes)
            self.conv3, self.bn3 = convolution(planes, 4 * planes, 1), nn.BatchNorm2d(4 * planes)
            short = [convolution(inputs, 4 * planes, 1, stride), nn.BatchNorm2d(4 * planes)]
            self.downsample = nn.Sequential(*short) if first else None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.bn1(self.conv1(x)).relu()
            y = self.bn2(self.conv2(y)).relu()
            return (self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))).relu()

    class Backbone(nn.Module):
        def __init__(self, dilated: bool) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False), nn.BatchNorm2d(WIDTH)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            inputs, dilation = WIDTH, 1
            for stage, blocks in enumerate((3, 4, 6, 3)):
                before, stride = dilation, 1 if stage == 0 else 2
                if dilated and stage >= 2:
                    dilation, stride = 2 * dilation, 1
                planes, made = WIDTH << stage, []
                for block in range(blocks):
                    first = block == 0
                    made.append(
                        Bottleneck(inputs, planes, stride if first else 1, before if first else dilation, first)
                    )
                    inputs = 4 * planes
                setattr(self, f"layer{stage + 1}", nn.Sequential(*made))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.maxpool(self.bn1(self.conv1(x)).relu())
            return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    class Classifier(Backbone):
        def __init__(self) -> None:
            super().__init__(dilated=False)
            self.fc = nn.Linear(32 * WIDTH, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(super().forward(x).mean(dim=(2, 3)))

    def block(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
        return nn.Sequential(convolution(inputs, outputs, kernel, 1, dilation), nn.BatchNorm2d(outputs), nn.ReLU())

    class Pooling(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).expand(-1, -1, *x.shape[2:])

    class Aspp(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            pooling = Pooling(nn.AdaptiveAvgPool2d(1), *block(inputs, outputs, 1))
            atrous = [block(inputs, outputs, 3, rate) for rate in (12, 24, 36)]
            self.convs = nn.ModuleList([block(inputs, outputs, 1), *atrous, pooling])
            self.project = nn.Sequential(*block(5 * outputs, outputs, 1), nn.Dropout(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.project(torch.cat([each(x) for each in self.convs], dim=1))

    class Segmentation(nn.Module):
        def __init__(self, classifier: nn.Module) -> None:
            super().__init__()
            self.backbone, self.classifier = Backbone(dilated=True), classifier

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.backbone(x))

    def head(inputs: int, channels: int, *more: nn.Module) -> list[nn.Module]:
        return [*block(inputs, channels, 3), *more, nn.Conv2d(channels, CLASSES, 1)]

    wide = 32 * WIDTH
    networks = {
        "resnet50": Classifier,
        "fcn_resnet50": lambda: Segmentation(nn.Sequential(*head(wide, 16, nn.Dropout(0.1)))),
        "deeplabv3_resnet50": lambda: Segmentation(nn.Sequential(Aspp(wide, 16), *head(16, 16))),
    }
    torch.manual_seed(0)
    network = networks[name]().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values, low, high in ((module.weight, 0.5, 1.5), (module.running_var, 0.5, 1.5)):
                    values.uniform_(low, high)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
        image = torch.rand(1, 3, *SIZE)
        mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        scores = network((image - mean) / deviation)
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    np.savez(out, **state)
    np.savez(f"{out}.answer.npz", image=image.numpy(), scores=scores.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
