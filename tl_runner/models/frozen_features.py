"""Features of a backbone that stays as it is: computed once a machine, and read in place of inputs from then on.

This is the one place that says what is kept, and by which key. A file holds what a backbone in evaluation mode makes of
the rows of a split, and a hash of each row:

    <outputs>/cache/features/<backbone of the configuration>/<network>-<rows>.safetensors

`network` is a hash of the layers, the weights, and the last bits' library, device and threads; `rows` of what the rows
hold. No seed, split, method or data set is in it: whoever freezes the same network finds what it made of the same rows.
A split that is new takes the rows that it has in common with earlier ones, at other seeds say, from their files.

The folder of a backbone keeps `LIMIT` bytes; what was not read for longest goes first. It may be deleted at any time.
Without a folder (`cache=None`) nothing is kept.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from copy import deepcopy
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from tl_runner.core import Model
from tl_runner.domains import InputKind, Pair, Split, Subset
from tl_runner.errors import UserError
from tl_runner.models.features import batch_size, gather_rows, iter_batches
from tl_runner.storage.cache import drop_oldest, keep_cached, load_cached

LIMIT = 20 * 2**30
INCOMPARABLE: Mapping[InputKind, str] = {  # why inputs themselves are not compared
    "text": "these rows are texts, and the numbers of their words say nothing of how alike two texts are",
    "audio": "these rows are waveforms, whose samples say nothing of how alike two sounds are",
}
HASH = 16  # bytes
ANY = "[0-9a-f]" * 2 * HASH  # hash in the name of a file


class Embedded:
    """A split seen through `embed`, which makes (n, d) of all its rows when it is first read."""

    def __init__(self, split: Split, embed: Callable[[Split], Tensor]):
        self.split, self.embed = split, embed

    def __len__(self) -> int:
        return len(self.split)

    def take(self, rows: Tensor) -> Tensor:
        return self._features[rows]

    @cached_property
    def _features(self) -> Tensor:
        return self.embed(self.split)


@torch.no_grad()
def embed_split(model: Model, split: Split) -> Tensor:
    """What the model's backbone makes of all rows in evaluation mode: (n, d) float32."""
    model.eval()
    return torch.cat([model.backbone(x).float() for x in iter_batches(split, model.device)])


class FeatureCache:
    """What one frozen network makes of splits, and the folder where it is kept."""

    def __init__(self, folder: Path, model: Model):
        self.folder, self.model = folder, model

    def embed(self, split: Split) -> Tensor:
        """As `embed_split`, from the folder where this or another run has computed the same before."""
        rows = hash_rows(split, self.model.device)
        file = self.folder / f"{self._network}-{blake2b(b''.join(rows), digest_size=HASH).hexdigest()}.safetensors"
        if found := load_cached(file):
            return found["features"].to(self.model.device)
        features = self._compute(split, rows)
        hashes = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8).view(-1, HASH)
        if keep_cached(file, {"features": features, "rows": hashes}):
            drop_oldest(self.folder.glob(f"{ANY}-{ANY}.safetensors"), LIMIT)
        return features

    @cached_property
    def _network(self) -> str:
        return hash_network(self.model)

    def _compute(self, split: Split, rows: Sequence[bytes]) -> Tensor:
        """The features of a split that has no file; of its rows, those that are in another file are taken from there.

        The last bits of what a network makes of a row may depend on how many rows a batch has: so only full batches
        give and take. They must not depend on which rows these are: known rows fill the last batch up, and where they
        do not come out as they are known, to the bit, all is computed.
        """
        size = batch_size(split, self.model.device)
        full = len(rows) // size * size
        known = self._find_rows({*rows[:full]}, size) if self._is_row_by_row(split) else {}
        missing = [at for at in range(full) if rows[at] not in known]
        taken = [at for at in range(full) if rows[at] in known]
        filling = taken[: size - len(missing) % size]
        passed = [*missing, *filling]
        if len(passed) == full or len(passed) % size:
            return embed_split(self.model, split)
        computed = self._embed_some(split, passed)
        features = torch.empty(len(rows), computed.shape[1])
        features[taken] = torch.stack([known[rows[at]] for at in taken])
        if not torch.equal(features[filling], computed[len(missing) :]):
            return embed_split(self.model, split)
        features[missing] = computed[: len(missing)]
        if full < len(rows):
            features[full:] = self._embed_some(split, range(full, len(rows)))
        return features.to(self.model.device)

    def _is_row_by_row(self, split: Split) -> bool:
        """Whether a row's features depend on that row: padding that a whole batch of texts has is left out of it."""
        return split.take(torch.zeros(1, dtype=torch.long, device=self.model.device)).is_floating_point()

    def _find_rows(self, wanted: Set[bytes], size: int) -> dict[bytes, Tensor]:
        """The features of those rows that were computed in a full batch of some other split, by the row's hash."""
        known = dict[bytes, Tensor]()
        for file in sorted(self.folder.glob(f"{self._network}-*.safetensors")) if wanted else ():
            kept = load_cached(file)
            hashes = kept["rows"].numpy() if kept else []
            for at, row in enumerate(hashes[: len(hashes) // size * size]):
                if kept and (row := row.tobytes()) in wanted:
                    known[row] = kept["features"][at].clone()  # a view would keep the whole file in memory
            if len(known) == len(wanted):
                break
        return known

    def _embed_some(self, split: Split, rows: Sequence[int]) -> Tensor:
        part = Subset(split, torch.tensor(rows, device=self.model.device))
        return embed_split(self.model, part).cpu()


def hash_rows(split: Split, device: torch.device) -> list[bytes]:
    """A hash of the shape and the numbers of each row."""
    return [
        blake2b(row.tobytes(), digest_size=HASH, key=f"{x.dtype}{tuple(x.shape[1:])}".encode()).digest()
        for x in iter_batches(split, device)
        for row in x.cpu().numpy()
    ]


def hash_network(model: Model) -> str:
    """A hash of all that features depend on beside the rows."""
    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
    told = repr((model.backbone, torch.__version__, device, torch.get_num_threads()))
    digest = blake2b(told.encode(), digest_size=HASH)
    for name, tensor in model.backbone.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FeatureModel(Model):
    """A copy of a model with its backbone frozen, which takes the backbone's features in place of inputs.

    Its weights are those of the whole model: saved and loaded again, it maps inputs to classes.
    """

    def __init__(self, model: Model):
        nn.Module.__init__(self)
        self.__dict__.update(deepcopy(model.__dict__))  # not Model.__init__, which would draw a new head
        self.freeze(self.stages)

    def features(self, *xs: Tensor) -> tuple[Tensor, ...]:
        return xs

    def maps(self, *xs: Tensor, at: Sequence[str] = ()) -> dict[str, tuple[Tensor, ...]]:
        last = self.stages[-1]
        if other := {*at} - {last}:
            raise UserError(f"features are computed once here, there are no maps of {', '.join(sorted(other))}")
        return {last: xs}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


def freeze_features(model: Model, pair: Pair, cache: Path | None = None) -> tuple[FeatureModel, Pair]:
    """The model with its backbone frozen, and the pair of what the backbone makes of each split, computed once.

    Training and evaluation then run on features. `cache` is a folder where other runs find them.
    """
    frozen = FeatureModel(model)
    embed = FeatureCache(cache, frozen).embed if cache else partial(embed_split, frozen)
    return frozen, pair.mapped(lambda split: Embedded(split, embed))


def rows_to_compare(
    model: Model, pair: Pair, view: Literal["inputs", "features"], cache: Path | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Training rows of source and target (n, d), (m, d), and the source's validation rows (k, d), on the CPU.

    They are flattened inputs, or the model's features. Raises `UserError` where inputs are texts, whose token ids are
    names and no numbers, or waveforms, which differ in all samples where they are heard alike.
    """
    if view == "inputs" and (why := INCOMPARABLE.get(pair.input)):
        raise UserError(f"{why}: compare what the source model makes of them by method.view=features")
    source, _ = pair.labelled_source
    if view == "features":
        _, pair = freeze_features(model, pair, cache)
        source, _ = pair.labelled_source
    return gather_rows(source.train), gather_rows(pair.target.train), gather_rows(source.val)
