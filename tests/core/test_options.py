"""What one run changed in its model options, and how a shared call gives each run its own again."""

from __future__ import annotations

import torch

from noise_search.search.lockstep.model_options import Change, apply_changes, change_between, clone_options, split_by_rows

POST = "sampler_post_cfg_function"


def first(args):
    return args["denoised"] + 1.0


def second(args):
    return args["denoised"] * args["cond_denoised"]


def test_nothing_changed():
    base = {"transformer_options": {"patches": {"attn1": [first]}, "scale": 2.0}, POST: [first]}
    assert change_between(base, clone_options(base)) == Change()


def test_appended_post_cfg_functions_are_a_runs_own():
    base = {POST: [first]}
    change = change_between(base, {POST: [first, second]})
    assert change == Change(post_cfg=(second,))
    assert change.key == Change().key  # may share


def test_replaced_post_cfg_functions_are_an_entry():
    change = change_between({POST: [first]}, {POST: [second]})
    assert change == Change(entries=(((POST,), [second]),))
    assert change.key != Change().key


def test_entries_are_compared_by_identity_and_plain_values_by_value():
    tensor = torch.ones(2)
    base = {"a": 1, "b": tensor, "inner": {"c": "x", "gone": 3}}
    change = change_between(base, {"a": 1, "b": tensor.clone(), "inner": {"c": "y"}, "new": (1, 2)})
    paths = [path for path, _ in change.entries]
    assert paths == [("b",), ("inner", "c"), ("inner", "gone"), ("new",)]
    assert change.entries[1][1] == "y" and change.entries[3][1] == (1, 2)

    same = {"a": 1, "b": change.entries[0][1], "inner": {"c": "y"}, "new": (1, 2)}
    assert change_between(base, same).key == change.key
    assert change_between(base, {**same, "b": tensor.clone()}).key != change.key
    assert change_between({"a": 1}, {"a": True}).entries  # 1 == True in Python


def test_changes_are_applied_to_a_copy():
    base = {"inner": {"kept": 1, "gone": 2}, POST: [first]}
    changed = {"inner": {"kept": 1, "deep": {"x": 5}}, POST: [first], "new": second}
    change = change_between(base, changed)
    assert apply_changes(base, [change, change], [1, 1]) == changed
    assert base == {"inner": {"kept": 1, "gone": 2}, POST: [first]}


def test_clones_share_leaves_but_no_containers():
    leaf = object()
    base = {"a": {"b": [leaf]}}
    clone = clone_options(base)
    clone["a"]["b"].append(1)
    clone["a"]["c"] = 2
    assert base == {"a": {"b": [leaf]}} and clone["a"]["b"][0] is leaf


def test_post_cfg_functions_get_their_own_rows():
    given = []

    def note(args):
        given.append({key: value for key, value in args.items()})
        return args["denoised"] + 10.0

    own = split_by_rows([(), (note, second), (first,)], [1, 2, 1])
    args = {
        "denoised": torch.tensor([[1.0], [2.0], [3.0], [4.0]]),
        "cond_denoised": torch.tensor([[1.0], [0.5], [2.0], [1.0]]),
        "sigma": torch.tensor([7.0, 7.0, 7.0, 7.0]),
        "cond_scale": 3.0,
        "model": None,
    }
    assert own(args).tolist() == [[1.0], [6.0], [26.0], [5.0]]
    assert given[0]["denoised"].tolist() == [[2.0], [3.0]] and given[0]["sigma"].shape == (2,)
    assert given[0]["cond_scale"] == 3.0


def test_a_shared_call_runs_the_graphs_functions_and_then_each_runs_own():
    base = {POST: [first]}
    changes = [Change(), Change(post_cfg=(second,))]
    functions = apply_changes(base, changes, [1, 1])[POST]
    args = {"denoised": torch.tensor([[1.0], [2.0]]), "cond_denoised": torch.tensor([[5.0], [5.0]])}
    for fn in functions:
        args["denoised"] = fn(args)
    assert args["denoised"].tolist() == [[2.0], [15.0]]
    assert apply_changes(base, [Change(), Change()], [1, 1])[POST] == [first]
