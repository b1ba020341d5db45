"""Several source domains as one: what is pooled, how it is split, and whose rows are whose."""

import numpy as np
import pytest
import torch
from conftest import QUICK, described, made
from PIL import Image

from tl_runner.datasets.budget import Budget
from tl_runner.datasets.digits import FAMILIES, digits, find_fonts
from tl_runner.datasets.folder import image_folder
from tl_runner.datasets.image_list import image_list
from tl_runner.datasets.pool import pool
from tl_runner.datasets.source_names import name_sources, tell_apart
from tl_runner.datasets.split import Drawn, Raw, fingerprint, split_domains
from tl_runner.datasets.text import text
from tl_runner.domains import Pair
from tl_runner.errors import UserError
from tl_runner.inference.load import load

CPU = torch.device("cpu")


def raw(name: str, n: int, offset: float, classes: tuple[str, ...] = ("a", "b")) -> Raw:
    x = offset + torch.arange(n, dtype=torch.float32)[:, None]
    return Raw(name, x, torch.arange(n) % len(classes), classes)


def pair_of(*sources: Raw, seed: int = 0) -> Pair:
    drawn = Drawn(pool(sources), raw("t", 50, 9000), {})
    return split_domains(drawn, seed, Budget.parse("0"), CPU)[0]


def test_a_domain_of_a_pool_is_split_as_it_is_alone():
    one, other = raw("one", 40, 0), raw("other", 100, 1000)
    both = pair_of(one, other).source
    assert both and both.name == "one + other" and [each.name for each in both.members] == ["one", "other"]
    for each, position in ((one, 0), (other, 1)):
        alone, member = pair_of(each).source, both.members[position]
        assert alone
        for part in ("train", "val", "test"):
            own = getattr(both, part).take(getattr(member, part)).flatten()
            assert sorted(own.tolist()) == sorted(getattr(alone, part).x.flatten().tolist())


def test_the_rows_of_a_pool_are_mixed_and_each_is_one_domains():
    source = pair_of(raw("one", 200, 0), raw("other", 200, 1000)).source
    assert source and source.labels
    first, second = (each.train.tolist() for each in source.members)
    assert sorted(first + second) == list(range(len(source.train)))
    assert 20 < sum(row < len(source.train) // 2 for row in first) < len(first) - 20  # no half is one domain's
    values = source.train.take(torch.arange(len(source.train))).flatten()
    assert ((values >= 1000).long() == source.train_members).all()
    assert (source.labels.train == values.long() % 2).all()


def test_a_part_that_the_makers_gave_stays_and_what_is_missing_is_cut_domain_by_domain():
    divided = raw("divided", 40, 0)._replace(part=torch.tensor([0] * 20 + [2] * 20))
    source = pair_of(divided, raw("whole", 100, 1000)).source
    assert source
    tests = [source.test.take(each.test).flatten().tolist() for each in source.members]
    assert sorted(tests[0]) == list(range(20, 40)) and len(tests[1]) == 20


def test_whose_a_row_is_counts_in_the_fingerprint():
    both = pool([raw("one", 40, 0), raw("other", 40, 1000)])
    assert both.member is not None
    moved = both._replace(member=both.member.flip(0))
    assert fingerprint(both) != fingerprint(moved) and fingerprint(both) != fingerprint(both._replace(member=None))


@pytest.mark.parametrize(
    ("names", "places", "told"),
    [
        (["a", "b"], ["x/a", "x/b"], ["a", "b"]),
        (["data.csv", "data.csv"], ["a/data.csv", "b/data.csv"], ["a/data.csv", "b/data.csv"]),
        (["d", "d", "e"], ["a/c/d", "b/c/d", "b/c/e"], ["a/c/d", "b/c/d", "b/c/e"]),
    ],
    ids=str,
)
def test_domains_of_one_name_are_told_apart_by_their_places(names, places, told):
    assert tell_apart(names, places) == told


def test_tables_of_one_name_in_two_folders_are_two_sources(tmp_path):
    for place in ("a", "b", "c"):
        (tmp_path / place).mkdir()
        rows = "".join(f"{ord(place) + i / 7},{'no' if i % 2 else 'yes'}\n" for i in range(30))
        (tmp_path / place / "data.csv").write_text("x,label\n" + rows)
    words = ["dataset=table", f"dataset.source=[{tmp_path}/a/data.csv,{tmp_path}/b/data.csv]", "backbone=mlp"]
    words += [f"dataset.target={tmp_path}/c/data.csv", "method=source_only", "train=tiny"]
    record = made(tmp_path, *words)
    assert record.status == "ok" and record.data.members and [*record.data.members] == ["a/data", "b/data"]
    assert record.data.domains == {"source": "a/data + b/data", "target": "c/data"}
    twice = [word.replace(f"{tmp_path}/b/", f"{tmp_path}/b/../a/") for word in words]
    with pytest.raises(UserError, match="names the same rows twice"):
        made(tmp_path, *twice)


def test_one_source_is_no_pool():
    one = raw("one", 40, 0)
    assert pool([one]) is one
    source = pair_of(one).source
    assert source and source.members == () and source.train_members.tolist() == [0] * len(source.train)


@pytest.mark.parametrize(
    ("asked", "named"), [(None, ()), ("a", ("a",)), (("a",), ("a",)), (["a", "b"], ("a", "b"))], ids=str
)
def test_a_source_is_named_alone_or_in_a_list(asked, named):
    assert name_sources(asked) == named


def test_what_can_not_be_pooled_is_refused():
    with pytest.raises(UserError, match="names a twice"):
        name_sources(["a", "b", "a"])
    wide = raw("wide", 10, 0)._replace(x=torch.zeros(10, 2))
    with pytest.raises(UserError, match="the sources must have one"):
        pool([raw("one", 10, 0), wide])


def named(name: str) -> Raw:
    """A domain all of whose rows have a name, a text, a group and a time."""
    words = np.array([f"{name}{row}" for row in range(10)], dtype=object)
    return raw(name, 10, 0)._replace(names=words, texts=words, group=words, time=np.arange(10.0))


UNLIKE: dict[str, tuple[dict[str, object], str]] = {
    "names": ({"names": None}, "the rows of one have `names`, and those of two have none: give it to all"),
    "texts": ({"texts": None}, "the rows of one have `texts`, and those of two have none"),
    "group": ({"group": None}, "the rows of one have `group`, and those of two have none"),
    "time": ({"time": None}, "the rows of one have `time`, and those of two have none"),
    "a name": ({"name": "one"}, "two of the sources are called one: each must have a name of its own"),
    "other classes": (
        {"classes": ("a", "c")},
        "the classes of one are a, b, those of two a, c: the sources must have the same",
    ),
    "their order": ({"classes": ("b", "a")}, "the classes of one are a, b, those of two b, a.* in the same order"),
    "a quantity": (
        {"classes": (), "quantity": "price"},
        "one has the quantity None, two price: the sources must have the same",
    ),
    "a pool": ({"members": ("x", "y"), "member": torch.arange(10) % 2}, "two is a pool already"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_domains_that_differ_in_what_is_known_of_their_rows_are_not_pooled(what):
    change, said = UNLIKE[what]
    both = pool([named("one"), named("two"), named("three")])
    for known in (both.names, both.texts, both.group, both.time):
        assert known is not None and len(known) == len(both.y) == 30
    other = named("two")._replace(**change)
    with pytest.raises(UserError, match=said):
        pool([named("one"), other])
    if what in Raw._fields:  # whichever lacks it
        with pytest.raises(UserError, match=said):
            pool([other, named("one")])


def test_families_of_fonts_are_domains_that_share_no_font():
    files = [file.stem.partition("-")[0] for file in find_fonts()]
    assert {FAMILIES[name] for name in files} == {"sans", "serif", "mono"} and len(files) == 12
    drawn = digits(0, source=("rendered", "handwritten", "mono"), target="serif", samples=60)
    assert drawn.source and drawn.source.members == ("rendered", "handwritten", "mono")
    rendered, mono = (drawn.source.x[drawn.source.member == position] for position in (0, 2))
    only_sans = digits(0, source="rendered", target="serif", samples=60).source
    assert only_sans is not None and len(rendered) == len(mono) == 60


def test_handwritten_digits_on_both_sides_are_halves():
    drawn = digits(3, source=("handwritten", "sans"), target="handwritten", samples=5000)
    assert drawn.source
    known = {row.numpy().tobytes() for row in drawn.source.x[drawn.source.member == 0]}
    target = {row.numpy().tobytes() for row in drawn.target.x}
    assert len(known & target) < 5 and len(drawn.target.x) in (898, 899)  # few digits are there twice


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": "serif", "target": "serif"}, "both serif"),
        (
            {"source": ("sans", "serif", "mono", "rendered")},
            "rendered has no font left: leave out one of sans",
        ),
    ],
    ids=str,
)
def test_domains_of_digits_that_leave_nothing_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        digits(0, samples=50, **options)


def test_a_run_on_several_sources_says_so_and_its_model_is_kept(tmp_path):
    record = made(tmp_path, *QUICK, "dataset.source=[sans,mono]", "dataset.target=handwritten", "method=mmd")
    assert record.status == "ok" and record.scores and record.scores.members
    assert record.data.members and [*record.data.members] == ["sans", "mono"] == [*record.scores.members]
    of_each = [of["accuracy"] for of in record.scores.members.values()]
    rows = [counts[2] for counts in record.data.members.values()]
    assert record.scores.source
    whole = sum(a * n for a, n in zip(of_each, rows, strict=True)) / sum(rows)
    assert record.scores.source["accuracy"] == pytest.approx(whole)
    for side in ("target", "source"):
        assert load(record.folder, side).classes == tuple("0123456789")


def test_each_order_of_seeds_and_sources_is_another_run_but_one_in_a_list(tmp_path):
    one = made(tmp_path, *QUICK, "dataset.source=[sans]", "method=source_only")
    assert one.data.members is None and one.data.domains["source"] == "sans"


def write_images(root, domain: str, classes: dict[str, int], shade: int, part: str = "") -> None:
    for name, count in classes.items():
        folder = root / domain / part / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = np.full((8, 8), shade, dtype=np.uint8)
            pixels[0, 0], pixels[0, 1] = number, hash_name(name)
            Image.fromarray(pixels).save(folder / f"{number}.png")


def hash_name(name: str) -> int:
    return sum(map(ord, name)) % 256


FOLDERS = ["dataset=image_folder", "train=tiny", "pretrain=tiny"]


def test_several_folders_are_pooled(tmp_path):
    write_images(tmp_path, "studio", {"cup": 20, "pen": 20}, 50)
    write_images(tmp_path, "web", {"cup": 15, "pen": 25}, 150)
    write_images(tmp_path, "phone", {"cup": 20, "pen": 20}, 250)
    drawn = image_folder(0, tmp_path / "cache", str(tmp_path), source=("studio", "web"), target="phone")
    assert drawn.source and drawn.source.members == ("studio", "web") and drawn.source.name == "studio + web"
    assert drawn.source.member is not None and drawn.source.names is not None
    shade = torch.where(drawn.source.member == 0, 50, 150)
    assert (drawn.source.x[:, 0, 5, 5] == shade).all()
    owners = [("studio" if member == 0 else "web") in name
              for member, name in zip(drawn.source.member.tolist(), drawn.source.names, strict=True)]  # fmt: skip
    assert all(owners)
    of_class = drawn.source.x[:, 0, 0, 1] == hash_name("cup")
    assert (of_class == (drawn.source.y == drawn.source.classes.index("cup"))).all()


def test_a_divided_folder_and_one_that_is_not_are_pooled(tmp_path):
    write_images(tmp_path, "divided", {"cup": 10, "pen": 10}, 50, "train")
    write_images(tmp_path, "divided", {"cup": 5, "pen": 5}, 60, "test")
    write_images(tmp_path, "whole", {"cup": 20, "pen": 20}, 150)
    write_images(tmp_path, "phone", {"cup": 20, "pen": 20}, 250)
    drawn = image_folder(0, tmp_path / "cache", str(tmp_path), source=("divided", "whole"), target="phone")
    source = split_domains(drawn, 0, Budget.parse("0"), CPU)[0].source
    assert source
    tests = [source.test.take(each.test) for each in source.members]
    assert len(tests[0]) == 10 and (tests[0][:, 0, 5, 5] == 60 / 255).all() and len(tests[1]) == 8


def test_a_class_that_one_source_lacks_is_told_and_shared_means_in_all(tmp_path, caplog):
    write_images(tmp_path, "studio", {"cup": 10, "pen": 10, "hat": 10}, 50)
    write_images(tmp_path, "web", {"cup": 10, "pen": 10}, 150)
    write_images(tmp_path, "phone", {"cup": 10, "pen": 10, "hat": 10}, 250)
    options = {"root": str(tmp_path), "source": ("studio", "web"), "target": "phone"}
    drawn = image_folder(0, tmp_path / "cache", **options)
    assert drawn.target.classes == ("cup", "hat", "pen") and "web has no class 'hat'" in caplog.text
    for stated, told in ((("cup", "pen", "hat"), True), (("cup", "pen"), False)):
        caplog.clear()
        image_folder(0, tmp_path / "cache", label_set=stated, **options)
        assert ("web has no class 'hat'" in caplog.text) == told
    shared = image_folder(0, tmp_path / "cache", labels="shared", **options)
    assert shared.target.classes == ("cup", "pen") and shared.source and len(shared.source.y) == 40


@pytest.mark.parametrize(
    ("source", "said"),
    [(("studio", "studio"), "names studio twice"), (("studio", "phone"), "both phone"), (("studio", "wob"), "web")],
    ids=str,
)
def test_folders_that_can_not_be_pooled_are_refused(tmp_path, source, said):
    for name in ("studio", "web", "phone"):
        write_images(tmp_path, name, {"cup": 5, "pen": 5}, 50)
    with pytest.raises(UserError, match=said):
        image_folder(0, tmp_path / "cache", str(tmp_path), source=source, target="phone")


def test_lists_of_images_are_pooled(tmp_path):
    for name, shade in (("studio", 50), ("web", 150), ("phone", 250)):
        write_images(tmp_path, name, {"cup": 10, "pen": 12}, shade)
        lines = [
            f"{name}/{file.parent.name}/{file.name} {file.parent.name}" for file in (tmp_path / name).rglob("*.png")
        ]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    lists = [str(tmp_path / f"{name}.txt") for name in ("studio", "web", "phone")]
    drawn = image_list(0, tmp_path / "cache", source=(lists[0], lists[1]), target=lists[2])
    assert drawn.source and drawn.source.member is not None and drawn.source.members == ("studio.txt", "web.txt")
    assert (drawn.source.x[:, 0, 5, 5] == torch.where(drawn.source.member == 0, 50, 150)).all()


def test_folders_of_texts_are_pooled(tmp_path):
    for domain in ("films", "books", "shops"):
        for name in ("good", "bad"):
            folder = tmp_path / domain / name
            folder.mkdir(parents=True)
            for number in range(8):
                (folder / f"{number}.txt").write_text(f"{domain} {name} number {number}")
    drawn = text(0, root=str(tmp_path), source=("films", "books"), target="shops")
    assert drawn.source and drawn.source.texts is not None and drawn.source.member is not None
    first = [words.split()[0] for words in drawn.source.texts]
    assert first == [drawn.source.members[k] for k in drawn.source.member.tolist()]


def test_the_content_of_every_source_is_in_the_id_of_a_run(tmp_path):
    for name in ("studio", "web", "phone"):
        write_images(tmp_path, name, {"cup": 8, "pen": 8}, 50 + len(name))
    words = [*FOLDERS, f"dataset.root={tmp_path}", "dataset.source=[studio,web]", "dataset.target=phone"]
    before = described(tmp_path / "outputs", *words)
    (tmp_path / "web" / "cup" / "0.png").write_bytes((tmp_path / "studio" / "cup" / "1.png").read_bytes())
    assert described(tmp_path / "outputs", *words).id != before.id
    record = made(tmp_path / "outputs", *words, "method=mmd", "backbone=small")
    assert record.status == "ok" and record.data.members and [*record.data.members] == ["studio", "web"]
