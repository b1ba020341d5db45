"""tl-predict: what it says of the files of a run's test split is what the run itself predicted."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import made
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save
from support.stored import calibrated
from torch import Tensor

import tl_runner
from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import digits
from tl_runner.datasets.split import split_domains
from tl_runner.errors import UserError
from tl_runner.inference.inputs import list_inputs, list_test_inputs
from tl_runner.inference.predict import compare_with_stored, predictions
from tl_runner.storage.record import RunRecord

TINY = ["train=tiny", "pretrain=tiny", "threads=1"]
EXACT = 1e-6  # batches of other sizes add up in another order
CLASSES = ("cup", "dog", "tree")


def photos(root: Path, n: int = 20, grey: bool = False) -> Path:
    """Two domains of three shapes on noise, as PNGs and JPEGs of different sizes, some turned by their EXIF."""
    rng = np.random.default_rng(0)
    for domain, light in (("a", 0), ("b", 60)):
        for label in CLASSES:
            for i in range(n):
                wide, high = (int(side) for side in rng.integers(12, 50, 2))
                image = Image.fromarray(rng.integers(light, light + 80, (high, wide, 3), dtype=np.uint8))
                box, fill = (wide // 4, high // 4, 3 * wide // 4, 3 * high // 4), (200, 40 * (i % 5), 90)
                draw = ImageDraw.Draw(image)
                {"cup": draw.rectangle, "dog": draw.ellipse, "tree": draw.arc}[label](
                    box, **({"start": 0, "end": 180} if label == "tree" else {}), fill=fill
                )
                exif = Image.Exif()
                exif[0x0112] = 6 if i % 4 == 1 else 1
                path = root / domain / label / f"{i:02}.{'jpg' if i % 3 else 'png'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                (image.convert("L") if grey else image).save(path, exif=exif)
    return root


def table(path: Path, seed: int, n: int = 90) -> Path:
    """Rows of age (with gaps), city, class, in which the city tells most."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "age", "city", "diagnosis"])
        for i in range(n):
            sick = rng.random() < 0.5
            age = "" if rng.random() < 0.2 else round(rng.normal(40 + 5 * sick + seed, 9), 2)
            writer.writerow([f"p{i}", age, rng.choice(["Ulm", "Bonn"], p=[0.8, 0.2] if sick else [0.3, 0.7]), sick])
    return path


def sheet(text: str) -> dict[str, dict[str, str]]:
    """The lines of a prediction by their path; none twice."""
    rows = list(csv.DictReader(text.splitlines()))
    assert len({row["path"] for row in rows}) == len(rows)
    return {row["path"]: row for row in rows}


def names(run: RunRecord) -> list[str]:
    return (run.folder / "test.csv").read_text().splitlines()[1:]


def stored(run: RunRecord) -> Tensor:
    """The probabilities that the run stored for its test rows at its selected step, at the temperature on record."""
    assert run.training.temperature is not None
    return calibrated(run)


def probabilities(rows: list[dict[str, str]], classes: tuple[str, ...]) -> Tensor:
    return torch.tensor([[float(row[name]) for name in classes] for row in rows])


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run on photos; the folder above its outputs is where it was made."""
    home = tmp_path_factory.mktemp("photos")
    root = photos(home / "photos")
    words = ["dataset=image_folder", f"dataset.root={root}", "dataset.source=a", "dataset.target=b", "dataset.size=12"]
    return made(home / "outputs", *words, "method=source_only", *TINY)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    home = tmp_path_factory.mktemp("clinic")
    files = [f"dataset.{role}={table(home / f'{role}.csv', seed)}" for seed, role in enumerate(("source", "target"))]
    words = ["dataset=table", *files, "dataset.label=diagnosis", "dataset.drop=[id]", "backbone=mlp", *TINY]
    return made(home / "outputs", *words, "method=mmd")


@pytest.fixture(scope="module")
def ink(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run on rendered -> handwritten digits of 8×8."""
    return made(tmp_path_factory.mktemp("ink"), *TINY, "dataset.samples=300", "dataset.size=8", "method=source_only")


def test_the_images_of_the_test_split_get_the_accuracy_and_the_probabilities_of_the_run(shot, typed):
    root = Path(shot.config["dataset"]["root"]) / "b"
    said = typed("tl-predict", shot.folder, root, "--out", "found.csv")
    assert (said.code, said.out) == (0, "") and "wrote 60 predictions to found.csv" in said.err
    found = sheet(Path("found.csv").read_text())
    assert list(found) == sorted(map(str, root.rglob("*.*")))
    rows = [found[name] for name in names(shot)]
    assert {Path(row["path"]).suffix for row in rows} == {".png", ".jpg"}
    sizes = set()
    for row in rows:
        with Image.open(row["path"]) as image:
            sizes.add(image.size)
    assert len(sizes) > 5
    right = [row["predicted"] == Path(row["path"]).parent.name for row in rows]
    assert len(right) == 12 and sum(right) / len(right) == shot.scores.target["accuracy"]
    torch.testing.assert_close(probabilities(rows, CLASSES), stored(shot), atol=1e-5, rtol=0)  # scaled by a temperature
    assert list(rows[0]) == ["path", "predicted", "probability", *CLASSES]
    for row in rows:
        assert float(row["probability"]) == max(float(row[name]) for name in CLASSES) == float(row[row["predicted"]])


@pytest.mark.parametrize("kind", ["scan of 12 bits", "four bands", "four bands as grey"])
def test_what_is_said_of_a_files_numbers_in_training_holds_in_predicting(tmp_path, typed, kind):
    """Taken as the files have it, all test rows would be about black, or white, and another class than in the run."""
    rng = np.random.default_rng(0)
    for domain in "ab":
        for label, bright in (("dark", 60), ("light", 160)):
            for i in range(20):
                pixels = rng.integers(bright, bright + 60, (12, 14, 4), dtype=np.uint16)
                pixels[..., 3] = i % 3
                scan = kind == "scan of 12 bits"
                path = tmp_path / "scans" / domain / label / f"{i:02}.{'png' if scan else 'tif'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(16 * pixels[..., 0] if scan else pixels.astype(np.uint8)).save(path)
    key = {"scan of 12 bits": "bit_depth=12", "four bands": "channels=3", "four bands as grey": "channels=1"}[kind]
    words = [f"dataset.root={tmp_path / 'scans'}", "dataset.source=a", "dataset.target=b", f"dataset.{key}"]
    run = made(tmp_path / "outputs", "dataset=image_folder", *words, "dataset.size=8", "method=source_only", *TINY)
    said = typed("tl-predict", run.folder, "--test", "--out", "found.csv")
    assert said.code == 0 and "8 of 8 rows have the class of the run's stored predictions" in said.err
    trained = tl_runner.load(run.folder)
    _, preprocessing, _ = trained
    x = preprocessing(*names(run))
    assert x.shape[1] == (3 if kind == "four bands" else 1) and 0.2 < x.min() < x.max() < 0.9
    assert preprocessing.facts["pixel_format"] == run.data.pixel_format
    with torch.no_grad():
        torch.testing.assert_close(trained.model(x).softmax(-1), stored(run), atol=EXACT, rtol=0)
    with Image.open(names(run)[0]) as image:
        assert torch.equal(preprocessing(image), x[:1])


def test_folders_of_other_programs_are_not_predicted(shot, typed):
    photos(Path("more"), n=2)
    for litter in ("@eaDir", "__MACOSX", ".ipynb_checkpoints"):
        shutil.copytree(Path("more/a/cup"), Path("more/a/cup") / litter)
    said = typed("tl-predict", shot.folder, "more")
    assert said.code == 0 and len(sheet(said.out)) == 12


def test_the_lines_of_the_test_split_get_the_accuracy_and_the_probabilities_of_the_run(clinic, typed):
    file = clinic.config["dataset"]["target"]
    said = typed("tl-predict", clinic.folder, file)
    assert said.code == 0 and said.err == ""  # label and dropped columns are no surprise
    found = sheet(said.out)
    lines = Path(file).read_text().splitlines()
    assert list(found) == [f"{file}:{line}" for line in range(2, len(lines) + 1)]
    rows = [found[name] for name in names(clinic)]
    labels = [lines[int(row["path"].rpartition(":")[2]) - 1].rpartition(",")[2] for row in rows]
    right = [row["predicted"] == label for row, label in zip(rows, labels, strict=True)]
    assert len(right) == 18 and sum(right) / len(right) == clinic.scores.target["accuracy"]
    torch.testing.assert_close(probabilities(rows, ("False", "True")), stored(clinic), atol=EXACT, rtol=0)


@pytest.mark.parametrize(("ending", "exact", "rows_off"), [("png", 0.02, 1), ("tiff", EXACT, 0)])
def test_digits_as_files_get_the_accuracy_of_the_run(ink, typed, ending, exact, rows_off):
    """PNGs round the 17 levels of ink to 256 ones: a probability may move a little, and an undecided row with it."""
    drawn = digits(0, samples=300, size=8)
    pair, answers, _ = split_domains(drawn, 0, Budget("count", 0), torch.device("cpu"))
    Path("ink").mkdir()
    for i, x in enumerate(pair.target.test.take(torch.arange(len(pair.target.test)))):
        values = x[0].numpy()
        image = Image.fromarray(np.round(values * 255).astype(np.uint8) if ending == "png" else values)
        image.save(f"ink/{i:03}.{ending}")
    said = typed("tl-predict", ink.folder, "ink")
    rows = list(sheet(said.out).values())
    predicted = torch.tensor([int(row["predicted"]) for row in rows])
    found = (predicted == answers.open()).double().mean().item()
    assert found == pytest.approx(ink.scores.target["accuracy"], rel=0, abs=rows_off / len(rows) + 1e-9)
    torch.testing.assert_close(probabilities(rows, tuple("0123456789")), stored(ink), atol=exact, rtol=0)


def test_options_may_stand_anywhere(clinic, typed):
    file = clinic.config["dataset"]["target"]
    said = typed("tl-predict", clinic.folder, "--domain", "source", file)
    assert said.code == 0 and said.out == typed("tl-predict", clinic.folder, file, "--domain", "source").out
    assert said.out == typed("tl-predict", clinic.folder, file).out  # this network has no BatchNorm


@pytest.mark.parametrize("name", ["shot", "clinic"])
def test_a_run_can_be_asked_for_its_own_test_split(name, typed, request):
    run = request.getfixturevalue(name)
    said = typed("tl-predict", run.folder, "--test")
    assert said.code == 0 and list(sheet(said.out)) == names(run)
    n = len(names(run))
    assert f"{n} of {n} rows have the class of the run's stored predictions" in said.err
    assert f"the run's target accuracy, {100 * run.scores.target['accuracy']:.1f} %" in said.err
    weights = run.folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(
        save({name: -tensor if "head" in name else tensor for name, tensor in load_file(weights).items()})
    )
    other = typed("tl-predict", run.folder, "--test")
    weights.write_bytes(kept)
    assert other.code == 1 and "these are not the rows" in other.err and "target accuracy" not in other.err
    assert typed("tl-predict", run.folder, "--test", "x").code == typed("tl-predict", run.folder).code == 2


def test_predictions_that_are_not_those_of_the_run_are_told(shot, tmp_path):
    shutil.copytree(shot.folder, tmp_path / "run")
    trained, record = tl_runner.load(shot.folder), shot
    found = torch.cat([each.predicted for each in predictions(trained, list_test_inputs(shot.folder, trained[1]))])
    assert compare_with_stored(found, record) == (12, 12, pytest.approx(0.0, abs=EXACT))
    other = found.roll(1, dims=1)
    rows, same, largest = compare_with_stored(other, record)
    assert (rows, same) == (12, 0) and largest == pytest.approx((other - found).abs().max().item(), abs=EXACT)
    with pytest.raises(UserError, match="stored predictions for 12 test rows, and 3 were made"):
        compare_with_stored(found[:3], record)


def test_a_run_whose_rows_are_no_files_has_no_test_csv(ink, typed):
    assert not (ink.folder / "test.csv").exists()
    assert "has no test.csv: its dataset is not made of files" in typed("tl-predict", ink.folder, "--test").err


def test_files_that_have_moved_are_said(shot, typed, tmp_path):
    shutil.copytree(shot.folder, tmp_path / "run")
    Path("run/test.csv").write_text("path\ngone/1.png\n")
    said = typed("tl-predict", "run", "--test")
    assert said.code == 1 and "error: 1 of 1 file of run/test.csv is missing, such as gone/1.png" in said.err


def test_folders_are_searched_at_any_depth_without_what_is_hidden(shot):
    for name in ("b/2.PNG", "b/c/1.jpg", "a.png", ".hidden.png", ".git/x.png", "notes.md"):
        Path("all", name).parent.mkdir(parents=True, exist_ok=True)
        Path("all", name).touch()
    preprocessing = tl_runner.load(shot.folder).preprocessing
    found = list_inputs([Path("all"), Path("all/notes.md")], preprocessing)
    assert [str(path) for path, _ in found] == ["all/a.png", "all/b/2.PNG", "all/b/c/1.jpg", "all/notes.md"]
    Path("all/list.txt").write_text("# two\nb/2.PNG 3\na.png\n")
    assert [str(path) for path, _ in list_inputs([Path("all/list.txt")], preprocessing)] == ["all/b/2.PNG", "all/a.png"]


def test_a_bad_image_ends_it_without_a_file_or_is_skipped_aloud(shot, typed, tmp_path):
    good = names(shot)[0]
    Path("bad").mkdir()
    for name, content in (("a.png", Path(good).read_bytes()), ("b.png", b"no image"), ("c.png", b"")):
        Path("bad", name).write_bytes(content)
    said = typed("tl-predict", shot.folder, "bad", "--out", "found.csv")
    assert said.code == 1 and said.err.endswith("error: bad/b.png: no image that Pillow knows; --on-bad skip leaves such files out")  # noqa: E501  # fmt: skip
    assert not [path for path in tmp_path.iterdir() if "found" in path.name]
    said = typed("tl-predict", shot.folder, "bad", "--on-bad", "skip")
    assert said.code == 0 and list(sheet(said.out)) == ["bad/a.png"]
    assert "skipped: bad/c.png: empty" in said.err and "2 of 3 files could not be read" in said.err
    said = typed("tl-predict", shot.folder, "bad/b.png", "--on-bad", "skip")
    assert said.code == 1 and said.out == "" and "no input could be predicted" in said.err


def refused(said: Any) -> str:
    assert said.code == 1 and said.out == "" and said.err.count("error: ") == 1 and "Traceback" not in said.err
    return said.err


def test_what_can_not_be_used_is_refused_in_words(shot, clinic, typed):
    Path("empty").mkdir()
    Path("empty/notes.txt").touch()
    assert "empty holds no image files (other files, at any depth: 1)" in refused(typed("tl-predict", shot.folder, "empty"))  # noqa: E501  # fmt: skip
    assert "phots: there is no such file" in refused(typed("tl-predict", shot.folder, "phots"))
    assert "did you mean 'empty'?" in refused(typed("tl-predict", shot.folder, "emty"))
    outputs = shot.folder.parents[2]
    assert f"1 below it, name one of them: {shot.folder}" in " ".join(refused(typed("tl-predict", outputs, "empty")).split())  # noqa: E501  # fmt: skip
    assert "there is no such folder" in refused(typed("tl-predict", "nowhere", "empty"))
    assert "there is no folder no" in refused(typed("tl-predict", shot.folder, names(shot)[0], "--out", "no/such.csv"))
    assert "empty is a folder" in refused(typed("tl-predict", shot.folder, names(shot)[0], "--out", "empty"))
    file = clinic.config["dataset"]["target"]
    before = Path(file).read_bytes()
    assert "this command did not write it" in refused(typed("tl-predict", clinic.folder, file, "--out", file))
    assert Path(file).read_bytes() == before
    mine = (shot.folder / "run.json", shot.folder / "model.safetensors", shot.folder / "test.csv")
    for kept in (*mine, Path("/dev/null")):  # of which none is an earlier sheet
        held = kept.stat()
        said = refused(typed("tl-predict", shot.folder, names(shot)[0], "--out", kept))
        assert "this command did not write it" in said and kept.stat() == held
    for _ in range(2):
        assert typed("tl-predict", shot.folder, names(shot)[0], "--out", "twice.csv").code == 0
    if not torch.cuda.is_available():
        assert "finds 0 CUDA devices" in refused(typed("tl-predict", clinic.folder, file, "--device", "cuda"))
    assert "is no text but a PNG image" in refused(
        typed("tl-predict", clinic.folder, next(n for n in names(shot) if "png" in n))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "failed", "error": "out of luck"}, "is 'failed' (out of luck): it has no model"),
        ({"status": "diverged"}, "is 'diverged': it has no model"),
        ({"status": "running", "error": "interrupted"}, "is 'running' (interrupted)"),
    ],
)
def test_a_run_that_did_not_end_well_is_not_used(shot, typed, tmp_path, change, message):
    shutil.copytree(shot.folder, tmp_path / "run")
    content = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps({**content, **change}))
    assert message in refused(typed("tl-predict", "run", names(shot)[0]))
    assert message in refused(typed("tl-export", "run", "--to", "pt2"))


def test_a_class_that_is_called_as_a_column_has_a_column_of_its_own(shot, typed, tmp_path):
    shutil.copytree(shot.folder, tmp_path / "run")
    content = json.loads(Path("run/run.json").read_text())
    content["data"]["classes"] = ["path", "a,b", "tree"]
    Path("run/run.json").write_text(json.dumps(content))
    header, line = csv.reader(typed("tl-predict", "run", names(shot)[0]).out.splitlines())
    assert header == ["path", "predicted", "probability", "class path", "a,b", "tree"] and len(line) == 6


def test_the_order_and_the_number_of_files_change_no_prediction(shot, monkeypatch):
    trained = tl_runner.load(shot.folder)
    chosen = list_inputs([Path(name) for name in names(shot)], trained.preprocessing)
    whole = torch.cat([each.predicted for each in predictions(trained, chosen)])
    monkeypatch.setattr("tl_runner.inference.predict.rows_per_batch", lambda numbers: 5)
    parts = list(predictions(trained, chosen[::-1]))
    assert [len(each.names) for each in parts] == [5, 5, 2]
    torch.testing.assert_close(torch.cat([each.predicted for each in parts]).flip(0), whole, atol=EXACT, rtol=0)


def test_a_reader_that_has_seen_enough_ends_it_quietly(clinic):

    code = "import sys; sys.argv[0] = 'tl-predict'; from tl_runner.cli.tl_predict import main; main()"
    words = [sys.executable, "-c", code, clinic.folder, *[clinic.config["dataset"]["target"]] * 40]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("path,predicted,probability,")
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 1


def test_a_backbone_of_ones_own_is_found_beside_its_options(typed, monkeypatch, tmp_path):
    Path("code").mkdir()
    Path("code/own_net.py").write_text(
        "from collections import OrderedDict\nfrom torch import nn\n"
        "def net(shape, bottleneck=None):\n"
        "    return nn.Sequential(OrderedDict(flat=nn.Flatten())), shape[0] * shape[1] * shape[2]\n"
    )
    words = ["~backbone.width", "~backbone.channels", "backbone._target_=own_net.net", "dataset.samples=60"]
    with monkeypatch.context() as patched:
        patched.syspath_prepend("code")
        run = made(tmp_path / "outputs", *TINY, *words, "dataset.size=8", "method=source_only")
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    Image.new("L", (9, 9)).save("a.png")
    assert "there is no module 'own_net' here" in refused(typed("tl-predict", run.folder, "a.png"))
    assert "--config-dir cod: there is no such folder" in refused(
        typed("tl-predict", run.folder, "a.png", "--config-dir", "cod")
    )
    assert typed("tl-predict", run.folder, "a.png", "--config-dir", "code").code == 0
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    assert typed("tl-export", run.folder, "--to", "pt2", "--config-dir", "code").code == 0
