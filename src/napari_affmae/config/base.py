"""What all settings share, and the constants of the program."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

PRESETS = ("nano", "small", "base")

#: Class index of pixels that are not labelled: they enter neither loss nor metric.
IGNORE_INDEX = -100

#: File that makes a folder a run.
RUN_FILE = "run.json"

#: Marks our annotation in a result's metadata, which says what the result was computed from.
ORIGIN_NAMESPACE = "napari-affmae/origin"

#: Crops that a pretraining must see to be worth it. 25,000 made no difference to later
#: fine-tuning and a million did (benchmarks/README.md); this number lies between them by
#: judgement, until the curve is measured.
WORTHWHILE_CROPS = 200_000

#: Labels with more values than this number objects, unless the values are named as classes.
MOST_CLASSES = 64

#: Side of a crop or a tile, pixels; far above what can be trained, and memory is taken by it.
MOST_CROP = 2**14

#: The largest seed of random numbers that every form and every generator takes.
MOST_SEED = 2**31 - 1

Device = Annotated[
    str,
    Field(
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        title="Device",
        examples=["auto", "cpu", "cuda", "cuda:1", "mps"],
        description="auto takes the first GPU, else the CPU, and says which.",
    ),
]
Precision = Literal["auto", "fp32", "fp16", "bf16"]
PRECISION_HELP = (
    "How exactly numbers are kept; auto takes the fastest that the device computes well."
)
FourInts = tuple[int, int, int, int]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown names are errors, and so is infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: Names of settings that mean nothing any more; old run folders and scripts still have them.
    retired: ClassVar[frozenset[str]] = frozenset()
