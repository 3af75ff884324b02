"""Prompt files: what is read from each format, and what a wrong one is told."""

from __future__ import annotations

import pytest

from noise_search.bench.prompt_files import Prompt, PromptFileError, read_all, read_prompts


def write(tmp_path, name: str, text: str):  # noqa: ANN201
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def test_drawbench(tmp_path):
    rows = ["Prompts,Category", '"A cat, a dog.",Colors', "Two cars.,Counting", "Two cars.,Counting", ""]
    path = write(tmp_path, "DrawBench.csv", "\r\n".join(rows))
    assert read_prompts(path) == [
        Prompt("DrawBench-00000", "A cat, a dog.", "Colors"),
        Prompt("DrawBench-00001", "Two cars.", "Counting"),
        Prompt("DrawBench-00002", "Two cars.", "Counting"),  # equal prompts stay apart
    ]


def test_geneval(tmp_path):
    line = '{"tag": "two_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}\n'
    (prompt,) = read_prompts(write(tmp_path, "evaluation_metadata.jsonl", line + "\n"))
    include = [{"class": "bench", "count": 1}]
    assert prompt == Prompt("evaluation_metadata-00000", "a photo of a bench", "two_object", {"include": include})


def test_compbench(tmp_path):
    color = write(tmp_path, "color_val.txt", "a green bench and a red car\n\n  a blue bowl\n")
    shape = write(tmp_path, "shape_val.txt", "a round clock\u2028on a wall\n")  # not a line's end
    prompts = read_all([color, shape])
    assert [(p.id, p.text, p.category) for p in prompts] == [
        ("color_val-00000", "a green bench and a red car", "color"),
        ("color_val-00001", "a blue bowl", "color"),
        ("shape_val-00000", "a round clock\u2028on a wall", "shape"),
    ]


def test_byte_order_mark_case_and_other_columns(tmp_path):
    path = write(tmp_path, "a b.csv", "\ufeffCAPTION,id\nx,7\n")
    assert read_prompts(path) == [Prompt("a_b-00000", "x", "", {"id": "7"})]
    path = write(tmp_path, "c.csv", "text,prompt\nx,y\n")
    assert [p.text for p in read_prompts(path, "text")] == ["x"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "Category,Label\nx,y\n", "line 1: expected one column .*found none in 'Category', 'Label'"),
        ("a.csv", "text,prompt\nx,y\n", "line 1: expected one column .*found 2 .*--column"),
        ("a.csv", "prompt,tag\nx,y\na cat, a dog,z\n", "line 3: expected 2 fields"),
        ("a.csv", "prompt,tag\nx\n", "line 2: expected 2 fields"),
        ("a.csv", 'prompt\n"x" y\n', "line 2: not CSV"),
        ("a.csv", "prompt,tag\nx,y\n ,z\n", "line 3: the prompt is ' '; expected some text"),
        ("a.csv", "prompt\n", "holds no prompt"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": \n', "line 2: expected one JSON object on the line"),
        ("a.jsonl", '{"prompt": "x", "n": NaN}\n', "line 1: .*NaN is not JSON"),
        ("a.jsonl", '["x"]\n', "line 1: expected a JSON object, found list"),
        ("a.jsonl", '{"prompt": 3}\n', "line 1: the prompt is 3; expected some text"),
        ("a.jsonl", '{"tag": "x"}\n', "line 1: expected one column or key"),
        ("a.txt", "\n\n", "holds no prompt"),
        ("a.md", "x\n", r"must end in \.csv, \.jsonl, \.txt"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, name, text, said):
    path = write(tmp_path, name, text)
    with pytest.raises(PromptFileError, match=said) as error:
        read_prompts(path)
    assert str(path) in str(error.value)


def test_other_mistakes(tmp_path):
    latin = tmp_path / "a.txt"
    latin.write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(PromptFileError, match="byte 3 is not UTF-8"):
        read_prompts(latin)
    with pytest.raises(PromptFileError, match="cannot be read: No such file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(PromptFileError, match="no column or key 'x'; there is 'prompt'"):
        read_prompts(write(tmp_path, "b.csv", "prompt\ny\n"), "x")
    with pytest.raises(PromptFileError, match="no columns"):
        read_prompts(write(tmp_path, "c.txt", "y\n"), "x")
    (tmp_path / "other").mkdir()
    with pytest.raises(PromptFileError, match="same name"):
        read_all([write(tmp_path, "d.txt", "x\n"), write(tmp_path, "other/d.txt", "y\n")])
