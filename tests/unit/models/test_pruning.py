"""Pruning removes channels and nothing else."""

import torch

from hemascope.models import build_model
from hemascope.models.pruning import prune
from hemascope.settings.run import ModelSettings


def test_channels_that_do_nothing_can_go_without_a_change() -> None:
    """Half of every link's channels are made silent: cutting them must not change an answer."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 28, 28)
    for name, options in (("cnn", {}), ("hemanet", {}), ("hemanet", {"block": "bottleneck"})):
        settings = ModelSettings(name=name, options=options)
        model = build_model(settings, image_size=28, num_classes=8).eval()
        weights = model.state_dict()
        for link in model.links():  # pyright: ignore[reportCallIssue]
            for part in (link.producer, link.norm):
                for kind in ("weight", "bias") if part else ():
                    if f"{part}.{kind}" in weights:
                        weights[f"{part}.{kind}"][1::2] = 0
        smaller, kept = prune(settings, model, 0.5)
        pruned = build_model(smaller, image_size=28, num_classes=8).eval()
        pruned.load_state_dict(kept)
        torch.testing.assert_close(pruned(images), model(images), atol=1e-5, rtol=1e-5)
        ours, theirs = (sum(p.numel() for p in m.parameters()) for m in (pruned, model))
        assert ours < 0.6 * theirs
