"""A model of your own: two outputs and a feature vector for every window, kept in a store.

python examples/custom_model.py SLIDE OUT.zarr
"""

import sys

import torch

import napari_wsi_heatmap as wh


class TwoHeads(torch.nn.Module):
    """Any nn.Module: here one that gives probabilities and the features that they come from."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.ReLU(),
            torch.nn.Conv2d(8, 16, 3, stride=2), torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        )  # fmt: skip
        self.head = torch.nn.Linear(16, 2)

    def forward(self, x):
        """(N, 3, H, W) -> logits (N, 2), features (N, 16)."""
        features = self.body(x)
        return self.head(features), features


def normalise(x):
    """Applied on the device, before the model."""
    return (x - 0.5) / 0.25


def main(slide, out):
    """Run it and look at what there is."""
    torch.manual_seed(
        0
    )  # yours would load weights: load_model(TwoHeads(), weights="w.safetensors")
    model = wh.load_model(
        TwoHeads(),
        window=64,
        transform=normalise,
        output=0,
        features=1,
        activation="softmax",
        names=["benign", "tumour"],
    )
    heatmap = wh.compute_heatmap(slide, model, stride=64, out=out, progress=False)
    table = heatmap.to_dataframe()
    print(table.describe().T.to_string())
    return heatmap, table


if __name__ == "__main__":
    main(*sys.argv[1:3])
