"""Prompt files are read whole or refused with the line; the order of drawing is keyed."""

import subprocess
import sys

import pytest

from services.prompts import PromptSource, balanced, read_prompts
from tdm_core.types import Prompt

pytestmark = pytest.mark.unit

FINE = '{"tag": "single_object", "include": [{"class": "cow", "count": 1}], "prompt": "a cow"}'


def write(tmp_path, content: str | bytes, name: str = "p.jsonl"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_genevals_schema_is_read_with_its_place_text_and_clauses(tmp_path):
    position = (
        '{"tag": "position", "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1,'
        ' "color": "red", "position": ["left of", 0]}], "exclude": [{"class": "cat", "count": 2}],'
        ' "prompt": "a red dog left of a cat"}'
    )
    first, second = read_prompts(write(tmp_path, FINE + "\n" + position + "\n\n"))
    assert (first.prompt_id, first.text) == ("p.jsonl:1", "a cow")
    assert first.metadata == {"tag": "single_object", "include": [{"class": "cow", "count": 1}]}
    assert second.prompt_id == "p.jsonl:2"
    assert second.metadata["include"][1]["position"] == ["left of", 0]


def test_a_bare_prompt_and_other_metadata_are_read(tmp_path):
    text = '{"prompt": " a dog "}\n{"prompt": "a cat", "tag": "pets", "style": {"ink": 2}}'
    first, second = read_prompts(write(tmp_path, text))
    assert (first.text, first.metadata) == ("a dog", {})
    assert second.metadata == {"tag": "pets", "style": {"ink": 2}}


def test_plain_text_is_one_prompt_a_line_with_any_line_end(tmp_path):
    content = b'\xef\xbb\xbfa "Sale" sign\r\nodd\xe2\x80\xa8separator\r\n\r\n'
    prompts = read_prompts(write(tmp_path, content, "p.txt"))
    assert [(p.prompt_id, p.text) for p in prompts] == [
        ("p.txt:1", 'a "Sale" sign'),
        ("p.txt:2", "odd\u2028separator"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a', "not JSON .*column 12"),
        ("", "not JSON"),
        ('["a dog"]', "not an object"),
        ('{"prompt": "a", "x": NaN}', "NaN is not a JSON value"),
        ('{"prompt": "half \\ud83d", "x": 1}', "ud83d' is half a character"),
        ('{"prompt": "a", "x": ["\\ud83d"]}', "is half a character"),
        ("[" * 100_000, "brackets in brackets"),
        ('{"text": "a"}', '"prompt" is None'),
        ('{"prompt": "  "}', "not blank"),
        ('{"prompt": 3}', '"prompt" is 3'),
        ('{"prompt": "a", "tag": 3, "include": [{"class": "a", "count": 1}]}', '"tag" is 3'),
        ('{"prompt": "a", "include": {}}', '"include" is {}; it must be a list'),
        ('{"prompt": "a", "include": []}', "no clause"),
        ('{"prompt": "a", "exclude": null}', '"exclude" is None; it must be a list .* left out'),
        ('{"prompt": "a", "include": ["dog"]}', r"include\[0\] is 'dog'"),
        ('{"prompt": "a", "include": [{"count": 1}]}', '"class" is None'),
        ('{"prompt": "a", "include": [{"class": "a"}]}', '"count" is None'),
        ('{"prompt": "a", "include": [{"class": "a", "count": 0}]}', '"count" is 0; .* from 1'),
        ('{"prompt": "a", "include": [{"class": "a", "count": true}]}', '"count" is True'),
        ('{"prompt": "a", "include": [{"class": "a", "count": 1.5}]}', '"count" is 1.5'),
        (
            '{"prompt": "a", "include": [{"class": "a", "count": 1, "color": 3}]}',
            '"color" is 3; .* "red"',
        ),
        (
            '{"prompt": "a", "include": [{"class": "a", "count": 1, "colour": "red"}]}',
            "unknown key 'colour'; did you mean 'color'",
        ),
        (
            '{"prompt": "a", "exclude": [{"class": "a", "count": 1, "position": ["above", 0]}]}',
            r"exclude\[0\] has unknown key 'position'",
        ),
    ],
)
def test_a_malformed_line_is_refused_with_its_number_and_the_reason(tmp_path, line, message):
    path = write(tmp_path, f"{FINE}\n{line}\n{FINE}\n")
    with pytest.raises(ValueError, match=f"p.jsonl:2: .*{message}"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ('"left of"', "write .*left of"),
        ('["left of"]', "write .*left of"),
        ('["near", 0]', "unknown relation 'near'; allowed: left of, right of, above, below"),
        ('["above", 1]', r"refers to include\[1\]; it must be an earlier clause"),
        ('["above", -1]', r"refers to include\[-1\]"),
        ('["above", "0"]', r"refers to include\['0'\]"),
        ('["above", true]', r"refers to include\[True\]"),
    ],
)
def test_an_impossible_position_is_refused(tmp_path, position, message):
    clause = f'{{"class": "b", "count": 1, "position": {position}}}'
    line = f'{{"prompt": "a", "include": [{{"class": "a", "count": 1}}, {clause}]}}'
    with pytest.raises(ValueError, match=rf"p.jsonl:1: include\[1\].*{message}"):
        read_prompts(write(tmp_path, line))


def test_a_blank_line_between_text_prompts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"p\.txt:2: blank line"):
        read_prompts(write(tmp_path, "a\n \nb\n", "p.txt"))


def test_a_line_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"p\.txt:2: not UTF-8"):
        read_prompts(write(tmp_path, b"fine\ncaf\xe9\n", "p.txt"))


def test_missing_and_empty_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist; give an existing"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="is empty; write one prompt a line"):
        read_prompts(write(tmp_path, "\n \n"))


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"p:{i}", str(i)) for i in range(count)]


def test_every_epoch_has_every_prompt_once_in_another_order():
    source = PromptSource(prompts(20), seed=3)
    taken = source.take(60)
    assert [group_id for group_id, _ in taken] == list(range(60))
    epochs = [[prompt.text for _, prompt in taken[i : i + 20]] for i in (0, 20, 40)]
    assert all(sorted(epoch) == sorted(map(str, range(20))) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(map(str, range(20)))


def test_the_order_is_a_function_of_the_seed_and_fixed_for_good():
    order = [prompt.text for _, prompt in PromptSource(prompts(6), seed=0).take(12)]
    assert order == [prompt.text for _, prompt in PromptSource(prompts(6), seed=0).take(12)]
    assert order != [prompt.text for _, prompt in PromptSource(prompts(6), seed=1).take(12)]
    assert "".join(order) == "124053541023"


def test_a_source_resumes_where_its_state_was_taken():
    source = PromptSource(prompts(5), seed=1)
    source.take(7)
    state = source.state_dict()
    resumed = PromptSource(prompts(5), seed=1)
    resumed.load_state_dict(state)
    assert resumed.take(9) == source.take(9)
    assert resumed.prompt_of(2) == source.prompt_of(2)


def test_a_state_of_another_seed_or_other_prompts_is_refused():
    state = PromptSource(prompts(5), seed=1).state_dict()
    with pytest.raises(ValueError, match="has seed 1 but this run has 2"):
        PromptSource(prompts(5), seed=2).load_state_dict(state)
    with pytest.raises(ValueError, match="resume with the prompt file"):
        PromptSource(prompts(6), seed=1).load_state_dict(state)


def test_a_source_needs_prompts():
    with pytest.raises(ValueError, match="at least one"):
        PromptSource([], seed=0)


def test_importing_prompts_imports_no_torch():
    code = "import sys, services.prompts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_balanced_prompts_show_every_tag_equally_often() -> None:
    prompts = [Prompt(f"a:{n}", f"p{n}", {"tag": "rare" if n == 0 else "common"}) for n in range(4)]
    tags = [prompt.metadata["tag"] for prompt in balanced(prompts, "tag")]
    assert tags.count("rare") == tags.count("common") == 3
    with pytest.raises(ValueError, match=r"balance_by='color'.*a:0"):
        balanced(prompts, "color")
