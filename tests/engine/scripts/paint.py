"""Train quickly on strokes of an image, with features that are kept on disk.

Variables: IMAGE (file), PRETRAINED, FEATURES (folder), RESULT (file for the number of tiles that
the network was asked for, the prediction, and whether torch's compiler was imported).
"""

import sys
from pathlib import Path

import numpy as np
import torch

from napari_affmae.config import LabelClass, QuickConfig
from napari_affmae.data import open_source
from napari_affmae.engine import QuickTraining, QuickView
from napari_affmae.engine.events import ViewPredicted
from napari_affmae.engine.store.kept_features import KeptFeatures

variables = globals()

torch.set_num_threads(1)
image = open_source(variables["IMAGE"], axes="ZYX")
classes = [LabelClass(value=n, name=str(n), color="#123456") for n in (1, 2)]
kept = KeptFeatures(Path(variables["FEATURES"]), lambda: 10**9)
config = QuickConfig(steps=5, hidden=8, device="cpu")
training = QuickTraining(variables["PRETRAINED"], [image], classes, config, kept=kept)
asked = []
training._module.encoder.register_forward_pre_hook(lambda *_: asked.append(1))
strokes = np.zeros((image.height, image.width), np.int64)
strokes[10:20, 10:20], strokes[40:50, 60:70] = 1, 2
view = QuickView(training.normalize(image), 0, slice(None), slice(None), strokes)
*_, predicted = training.update([view], view)
assert isinstance(predicted, ViewPredicted)
np.savez(
    variables["RESULT"],
    tiles=len(asked),
    probabilities=predicted.probabilities,
    compiler=not {"sympy", "torch._dynamo"}.isdisjoint(sys.modules),
)
