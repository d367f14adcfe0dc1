"""What an image should read, and what a misreading costs."""

import importlib.metadata

import pytest

from services.config import RewardConfig
from services.reward.ocr import OcrReward, levenshtein, normalised, target_of, text_reward
from services.reward.worker import check_requirements
from tdm_core.types import Prompt

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)],
)
def test_levenshtein_counts_edits(a, b, distance):
    assert levenshtein(a, b) == distance


@pytest.mark.parametrize(
    ("target", "read", "reward"),
    [
        ("sale", "sale", 1.0),
        ("sale", "bigsalehere", 1.0),
        ("sale", "sole", 0.75),
        ("sale", "", 0.0),
        ("sale", "xxxxxxxxxxxxxxx", 0.0),
        ("sale", "sal", 0.75),
        ("a", "b", 0.0),
    ],
)
def test_the_reward_is_one_minus_the_capped_share_of_edits(target, read, reward):
    assert text_reward(target, read) == reward


def test_case_and_every_white_space_are_removed():
    assert normalised(" Grand\tOpening \n2024 ") == "grandopening2024"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ('a sign "Open Now" above "Closed"', "opennow"),
        ('"SALE"', "sale"),
        ("a sign \u201cOpen\u201d", "open"),
        ('a 5" disc', None),
        ("a sign", None),
        ('a sign " "', None),
        ('a sign ""', None),
    ],
)
def test_the_target_is_the_first_text_in_double_quotes(text, target):
    if target is None:
        with pytest.raises(ValueError, match="double quotes"):
            target_of(Prompt("p:1", text))
    else:
        assert target_of(Prompt("p:1", text)) == target


def test_a_prompt_without_quoted_text_is_named_before_the_run():
    config = RewardConfig(name="text", kind="ocr")
    with pytest.raises(ValueError, match=r"'text' \(ocr\) cannot judge the prompt p:7 'a dog'"):
        check_requirements(config, [Prompt("p:1", 'a "B"'), Prompt("p:7", "a dog")])


@pytest.mark.parametrize("side", [31, 2001, "big", 128.0])
def test_an_impossible_side_is_refused(side):
    with pytest.raises(ValueError, match=r"limit_side_len=.*from 32 to 2000"):
        OcrReward(limit_side_len=side)


def test_find_lines_is_yes_or_no_and_changes_the_version():
    with pytest.raises(ValueError, match="find_lines='no': allowed are true and false"):
        OcrReward(find_lines="no")
    assert OcrReward(find_lines=False).version != OcrReward().version


def test_a_language_is_known_and_has_its_weights(tmp_path):
    with pytest.raises(ValueError, match=r"language='klingon'; allowed: ch, .*latin"):
        OcrReward(language="klingon")
    with pytest.raises(ValueError, match="language='korean' needs the option recognizer"):
        OcrReward(language="korean")
    with pytest.raises(ValueError, match=r"korean.onnx' does not exist"):
        OcrReward(language="korean", recognizer=str(tmp_path / "korean.onnx"))


def test_the_version_tells_models_apart(tmp_path):
    model = tmp_path / "det.onnx"
    versions = set()
    for content in (b"one", b"two"):
        model.write_bytes(content)
        versions.add(OcrReward(detector=str(model)).version)
    versions |= {OcrReward(language=n, recognizer=str(model)).version for n in ("latin", "arabic")}
    assert len(versions | {OcrReward().version}) == 5


def test_the_version_names_the_engine_s_own_and_its_models():
    engine = importlib.metadata.version("rapidocr")
    models = "PP-OCRv6_det_small:PP-OCRv6_rec_small"
    assert OcrReward().version == f"1:rapidocr {engine}:ch:128:{models}"
