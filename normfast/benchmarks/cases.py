"""The one list of what is timed: shapes taken from real models, chosen, not every combination."""

from dataclasses import dataclass, field, replace
from math import prod

OPS = (
    "layer_norm", "rms_norm", "batch_norm", "batch_norm_relu", "batch_norm_inference", "group_norm", "instance_norm", "lp_norm", "dropout",
    "dropout_add_layer_norm", "dropout_add_rms_norm", "add_layer_norm", "add_rms_norm", "moments", "standardize",
)  # fmt: skip
WIDTHS = {"bfloat16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    `axis` is that of the features, of the channels (batch, group and instance norm) or of the reduction (moments, standardize). `threads`
    None means all. `out` says whether y or dx (with h or dresidual, where there is a residual stream) goes to an array that is there. `dh`
    says whether h has a gradient too, as in a pre-norm network: in backward rows. `series` is "models" or "scaling".
    """

    op: str
    model: str
    shape: tuple
    axis: int | tuple | None = -1
    groups: int | None = None
    dtype: str = "float32"
    direction: str = "forward"
    threads: int | None = None
    out: bool = True
    dh: bool = False
    series: str = "models"
    quick: bool = field(default=False, compare=False)

    @property
    def name(self):
        """The operation as the table shows it."""
        options = [self.direction] if self.direction != "forward" else []
        if self.op == "moments":
            options.append(f"axis {self.axis}")
        elif self.op.startswith("batch_norm") and self.axis == -1 and len(self.shape) > 2:
            options.append("NHWC")
        elif self.groups:
            options.append(f"{self.groups} groups")
        elif self.dh:
            options.append("dh")
        return ", ".join([self.op, *options])

    @property
    def id(self):
        """A name that no other case has."""
        ways = [f"{self.threads or 'all'} threads", "out" if self.out else "allocating"]
        return ", ".join([self.name, self.model, "x".join(map(str, self.shape)), self.dtype, *ways]).replace("1 threads", "1 thread")

    @property
    def fused(self):
        """Whether x is added to a residual stream before the norm."""
        return "add_" in self.op

    @property
    def inner(self):
        """The case of the norm alone."""
        return replace(self, op=self.op.removeprefix("dropout_").removeprefix("add_"), dh=False)

    @property
    def nbytes(self):
        """Bytes of x."""
        return prod(self.shape) * WIDTHS[self.dtype]

    @property
    def streams(self):
        """How many arrays of x's size must be read or written at least."""
        if self.op == "moments":
            return 1
        passes = {"forward": 2, "backward": 2 if self.op == "dropout" else 3}  # dropout's backward needs no x
        if self.fused:  # x and the stream give y and h; dy and h, and dh where there is one, give dx and dresidual
            passes = {"forward": 4, "backward": 4 + self.dh}
        return sum(passes.values()) if self.direction == "both" else passes[self.direction]


def both_ways(op, model, *shape, **options):
    """Forward and backward, which most rows are."""
    forward = Case(op, model, shape, **options)
    return [forward, replace(forward, direction="backward")]


def variants(op, model, *shape, dtypes=("float64", "bfloat16"), **options):
    """The other dtypes, one thread, the allocating call, and forward with backward."""
    case = Case(op, model, shape, **options)
    backward = replace(case, direction="backward")
    return [
        *(replace(one, dtype=dtype) for dtype in dtypes for one in (case, backward)),
        *(replace(one, threads=1) for one in (case, backward)),
        *(replace(one, out=False) for one in (case, backward)),
        replace(case, direction="both", out=False),
    ]


MB = 1 << 20

CASES = [
    # rows: one token or sample, within the L2 cache, beyond it, far beyond
    *both_ways("layer_norm", "BERT, one token", 1, 768, quick=True),
    *both_ways("layer_norm", "BERT", 512, 768),
    *both_ways("layer_norm", "BERT, batch of 8", 4096, 768, quick=True),
    *both_ways("layer_norm", "GPT-2 XL", 1024, 1600),
    *both_ways("layer_norm", "GPT-J", 8192, 4096),
    *both_ways("layer_norm", "ViT-L", 32, 197, 1024),
    *both_ways("layer_norm", "Whisper large", 1500, 1280),
    *both_ways("layer_norm", "ConvNeXt-T", 32, 56, 56, 96),
    *both_ways("layer_norm", "64 MB in bfloat16", 32768, 1024, dtype="bfloat16"),
    *both_ways("layer_norm", "same in float32", 32768, 1024),
    *variants("layer_norm", "BERT", 512, 768),
    *variants("layer_norm", "BERT, batch of 8", 4096, 768),
    *both_ways("rms_norm", "Llama, one token", 1, 4096, quick=True),
    *both_ways("rms_norm", "Llama", 2048, 4096, quick=True),
    *both_ways("rms_norm", "Qwen3, heads", 2048, 32, 128),
    *both_ways("rms_norm", "64 MB in bfloat16", 32768, 1024, dtype="bfloat16"),
    *both_ways("rms_norm", "same in float32", 32768, 1024),
    *variants("rms_norm", "TinyLlama", 512, 2048),
    *both_ways("lp_norm", "CLIP", 4096, 512),
    *both_ways("lp_norm", "embeddings", 65536, 128),
    # channels
    *both_ways("batch_norm", "ResNet-50", 32, 64, 56, 56, axis=1, quick=True),
    *both_ways("batch_norm", "ResNet-50, batch of 128", 128, 64, 56, 56, axis=1),
    *both_ways("batch_norm", "ResNet-50", 32, 256, 56, 56, axis=1),
    *both_ways("batch_norm", "ResNet-50", 32, 2048, 7, 7, axis=1),
    *both_ways("batch_norm", "ResNet-50", 32, 56, 56, 64, axis=-1),
    *both_ways("batch_norm", "tabular", 65536, 64, axis=1),
    *both_ways("batch_norm", "tabular", 4096, 512, axis=1),
    *variants("batch_norm", "ResNet-50", 32, 64, 56, 56, axis=1),
    *both_ways("batch_norm_relu", "ResNet-50", 32, 64, 56, 56, axis=1),
    *both_ways("batch_norm_relu", "ResNet-50", 32, 256, 56, 56, axis=1),
    Case("batch_norm_inference", "ResNet-50, one image", (1, 64, 56, 56), axis=1),
    Case("batch_norm_inference", "ResNet-50, one image", (1, 2048, 7, 7), axis=1),
    Case("batch_norm_inference", "ResNet-50", (32, 64, 56, 56), axis=1),
    Case("batch_norm_inference", "ResNet-50", (32, 64, 56, 56), axis=1, threads=1),
    *both_ways("group_norm", "Stable Diffusion", 2, 320, 64, 64, axis=1, groups=32, quick=True),
    *both_ways("group_norm", "Stable Diffusion", 2, 640, 32, 32, axis=1, groups=32),
    *both_ways("group_norm", "Stable Diffusion", 2, 1280, 16, 16, axis=1, groups=32),
    *both_ways("group_norm", "ResNet-50", 32, 64, 56, 56, axis=1, groups=32),
    *variants("group_norm", "Stable Diffusion", 2, 320, 64, 64, axis=1, groups=32, dtypes=("bfloat16",)),
    *both_ways("instance_norm", "style transfer", 8, 64, 128, 128, axis=1),
    *both_ways("instance_norm", "style transfer", 1, 32, 256, 256, axis=1),
    # blocks of a Transformer: dropout, sum and norm
    *both_ways("dropout_add_layer_norm", "BERT", 512, 768),
    *both_ways("dropout_add_layer_norm", "BERT, batch of 8", 4096, 768, quick=True),
    *both_ways("dropout_add_layer_norm", "GPT-2 XL", 1024, 1600),
    *both_ways("dropout_add_layer_norm", "GPT-J", 8192, 4096),
    Case("dropout_add_layer_norm", "GPT-2 XL", (1024, 1600), direction="backward", dh=True),
    *variants("dropout_add_layer_norm", "BERT, batch of 8", 4096, 768, dtypes=("bfloat16",)),
    *(
        Case("dropout_add_layer_norm", model, shape, direction="both", out=False)
        for model, shape in (("BERT", (512, 768)), ("GPT-2 XL", (1024, 1600)), ("GPT-J", (8192, 4096)))
    ),
    *both_ways("dropout_add_rms_norm", "Llama", 2048, 4096),
    Case("dropout_add_rms_norm", "Llama", (2048, 4096), direction="both", out=False),
    Case("add_layer_norm", "BERT, batch of 8", (4096, 768)),
    Case("add_layer_norm", "BERT, batch of 8", (4096, 768), dtype="bfloat16"),
    Case("add_layer_norm", "BERT, batch of 8", (4096, 768), threads=1),
    Case("add_layer_norm", "ViT-L", (32, 197, 1024)),
    Case("add_rms_norm", "TinyLlama", (512, 2048)),
    Case("add_rms_norm", "TinyLlama", (512, 2048), threads=1),
    Case("add_rms_norm", "Llama", (2048, 4096)),
    Case("add_rms_norm", "Llama", (2048, 4096), dtype="bfloat16"),
    # elementwise, reductions
    *both_ways("dropout", "BERT, batch of 8", 4096, 768, quick=True),
    *both_ways("dropout", "BERT", 512, 768),
    *both_ways("dropout", "GPT-J", 8192, 4096),
    *variants("dropout", "BERT, batch of 8", 4096, 768),
    *(Case("moments", "BERT, batch of 8", (4096, 768), axis=axis, out=False) for axis in (None, 0, -1)),
    *(Case("moments", "tabular", (65536, 64), axis=axis, out=False, quick=axis == 0) for axis in (None, 0, -1)),
    Case("moments", "ResNet-50", (32, 64, 56, 56), axis=(0, 2, 3), out=False),
    *(Case("moments", "tabular", (65536, 64), axis=axis, out=False, dtype="float64") for axis in (None, 0)),
    Case("moments", "tabular", (65536, 64), axis=0, out=False, threads=1),
    Case("standardize", "tabular", (65536, 64), axis=0),
    Case("standardize", "tabular", (65536, 64), axis=0, dtype="float64"),
    *(
        Case("layer_norm", f"{mb} MB", (mb * MB // 4096, 1024), threads=threads, series="scaling")
        for mb in (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
        for threads in (1, 2)
    ),
]


def tiny(case):
    """The case with every length clipped: to 5, channels to 4 in two groups, rows of features to 24."""
    axis = case.axis % len(case.shape) if isinstance(case.axis, int) else None
    rows = case.inner.op in ("layer_norm", "rms_norm", "lp_norm", "dropout")
    longest = [(24 if rows else 4) if i == axis else 5 for i in range(len(case.shape))]
    shape = tuple(min(pair) for pair in zip(case.shape, longest, strict=True))
    return replace(case, shape=shape, groups=case.groups and 2)


def selected(ops=None, quick=False, series=("models", "scaling")):
    """The cases of these operations (all by default), or those of the quick table."""
    return [case for case in CASES if (not ops or case.op in ops) and (case.quick or not quick) and case.series in series]
