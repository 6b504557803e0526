"""The review station in this process: from uploaded cells to a signed differential and its data."""

import base64
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from conftest import Outcome, read
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.inference.predictor import Predictor
from hemascope.review.database import Case
from hemascope.review.retention import delete_older, delete_strays
from stations import PACKAGED, Desk, cell_files, change, desk_at, png

Run = Callable[..., Outcome]


def files_of(desk: Desk) -> set[str]:
    """The names of all files of pictures."""
    folder = desk.station.images.path("0" * 64).parents[1]
    return {path.name for path in folder.rglob("*") if path.is_file()}


# --- cells come in -------------------------------------------------------------------------------


def test_cells_come_in_once_and_are_answered_once(desk: Desk) -> None:
    case, files = desk.case(), cell_files(8)
    first = desk.upload(case, files)
    assert (first["added"], first["known"], first["passed_over"]) == (8, 0, [])
    assert [cell["name"] for cell in first["cells"]] == list(files)
    assert all(not cell["predicted_class"] for cell in first["cells"])
    assert desk.info(case)["counts"] == {
        "cells": 8,
        "waiting": 8,
        "unreadable": 0,
        "unidentified": 8,
    }
    again = desk.upload(case, {**files, "new.png": cell_files(9)["cell-008.png"]})
    assert (again["added"], again["known"]) == (1, 8)
    messages = desk.analyze(case)
    answered = [cell for message in messages[:-1] for cell in message["cells"]]
    assert [cell["position"] for cell in answered] == list(range(9))
    assert messages[-1]["complete"]
    assert (messages[-1]["done"], messages[-1]["total"]) == (9, 9)
    assert messages[-1]["frame"].startswith("Framed by the cells")
    again = desk.analyze(case)
    assert len(again) == 1
    assert again[0]["frame"] == messages[-1]["frame"]
    shown = desk.cells(case)
    assert shown == answered
    for cell in shown:
        picture = desk.ask("GET", f"http://localhost{cell['image']}", status=200)
        assert picture.headers["content-type"] == "image/png"
        small = desk.ask("GET", f"http://localhost{cell['thumbnail']}", status=200)
        with Image.open(io.BytesIO(small.content)) as image:
            assert max(image.size) == 96
        assert cell["class"] == ("" if cell["abstain"] else cell["predicted_class"])
        assert not cell["read"]


def test_an_unreadable_picture_has_its_place_and_its_reason(desk: Desk) -> None:
    case, files = desk.case(), cell_files(4)
    files["cell-001.png"] = files["cell-001.png"][:300]
    sent = desk.upload(case, {**files, "notes.txt": b"hello"})
    assert sent["added"] == 4
    assert sent["passed_over"] == ["1 file(s) that are not images were passed over (notes.txt)."]
    desk.analyze(case)
    bad = desk.cells(case)[1]
    assert bad["error"]
    assert bad["image"] is None
    assert bad["abstain"]
    info = desk.info(case)
    assert info["counts"]["unreadable"] == 1
    refused = desk.correct(case, [change(bad, "monocyte")], status=422)
    assert refused["field"] == "changes[0].to"
    desk.identify(case)
    assert desk.cells(case)[1]["class"] == "not counted"
    desk.act(case, "sign")


def test_nothing_that_is_an_image_makes_no_cell(local_desk: Desk) -> None:
    case = local_desk.case()
    sent = local_desk.upload(case, {"a.txt": b"x"})
    assert (sent["added"], len(sent["passed_over"])) == (0, 1)
    local_desk.ask(
        "POST",
        f"/cases/{case}/files",
        params={"reader": local_desk.reader("Ann")},
        data={"x": "y"},
        status=422,
    )
    assert "There are no cells." in local_desk.info(case)["blockers"]
    refused = local_desk.act(case, "sign", status=409)
    assert refused["blockers"] == ["There are no cells."]


def test_a_full_case_takes_no_more_and_keeps_what_it_has(
    packaged: Predictor, tmp_path: Path
) -> None:
    with desk_at(tmp_path / "station", packaged, max_cells=5, max_files=6) as desk:
        case = desk.case()
        desk.upload(case, cell_files(4))
        refused = desk.upload(case, cell_files(4, seed=9), status=413)
        assert refused["field"] == "file"
        assert "a case may hold 5 cells" in refused["detail"]
        assert desk.info(case)["counts"]["cells"] == 4
        refused = desk.upload(case, cell_files(7), status=413)
        assert "a request may hold 6 images" in refused["detail"]
        delete_strays(desk.station)
        assert len(files_of(desk)) == 8  # a picture and its small copy for each cell


def answers_of_predict(hemascope: Run, files: dict[str, bytes], folder: Path) -> list[Any]:
    cells = folder / "cells"
    cells.mkdir()
    for name, content in files.items():
        (cells / name).write_bytes(content)
    out = folder / "answers.jsonl"
    outcome = hemascope("predict", cells, "--model", PACKAGED, "--out", out)
    assert outcome.code in (0, 1), outcome.err
    return [json.loads(line) for line in out.read_text().splitlines()]


_SAME = ("predicted_class", "prediction_set", "abstain", "warning", "error", "distance", "note")


def test_answers_are_those_of_predict(desk: Desk, hemascope: Run, tmp_path: Path) -> None:
    files = cell_files(16)
    pictures = render(np.arange(4), seed=8, image_size=160)
    files |= {f"large-{i}.jpg": png(one, "JPEG") for i, one in enumerate(pictures)}
    files["broken.png"] = files["cell-002.png"][:200]
    files["gray.png"] = png(Image.fromarray(pictures[0]).convert("L"))
    rows = answers_of_predict(hemascope, files, tmp_path)
    case = desk.case()
    names = list(files)
    for part in (names[::2], names[1::2]):  # in which order and in how many requests, is all one
        desk.upload(case, {name: files[name] for name in part})
    desk.analyze(case)
    cells = {cell["name"]: cell for cell in desk.cells(case)}
    assert len(rows) == len(cells) == 22
    for row in rows:
        cell = cells[Path(row["path"]).name]
        assert {name: cell[name] for name in _SAME} == {
            name: row[name] if row[name] is not None else "" if name != "distance" else None
            for name in _SAME
        }
        if not row["error"]:
            assert cell["confidence"] == round(row["confidence"], 6)
            assert cell["probs"] == {
                name.removeprefix("prob:"): round(value, 6)
                for name, value in row.items()
                if name.startswith("prob:")
            }


def test_predict_keeps_nothing_and_says_the_same(
    desk: Desk, hemascope: Run, tmp_path: Path
) -> None:
    files = cell_files(10)
    rows = answers_of_predict(hemascope, files, tmp_path)
    sent = [("file", one) for one in files.items()]
    answer = desk.ask("POST", "/predict", files=sent, status=200).json()
    assert answer["frame"].startswith("Framed by the cells")
    expected = [{"name": Path(row.pop("path")).name, **row} for row in rows]
    assert answer["answers"] == expected
    stream = desk.ask(
        "POST", "/predict", files=sent, headers={"Accept": "application/x-ndjson"}, status=200
    )
    assert [json.loads(line) for line in stream.text.splitlines()] == expected
    assert files_of(desk) == set()
    assert desk.get("/cases")["items"] == []
    refused = desk.ask("POST", "/predict", files=[("file", ("a.txt", b"x"))], status=422)
    assert refused.json()["field"] == "file"


@pytest.mark.parametrize("count", [12, 60])  # of which the second moves the last layer
def test_predict_takes_the_frame_of_an_earlier_answer(local_desk: Desk, count: int) -> None:
    def ask(files: dict[str, bytes], frame: str = "", status: int = 200) -> Any:
        sent, data = [("file", one) for one in files.items()], {"frame": frame}
        return local_desk.ask("POST", "/predict", files=sent, data=data, status=status).json()

    files = {
        f"{i}.png": png(padded(one)) for i, one in enumerate(render(np.arange(count) % 7, seed=6))
    }
    together = ask(files)
    assert ("moved" in together["frame"]) == (count == 60)
    assert ("moved" in together["answers"][0]["note"]) == (count == 60)
    one_by_one = [
        ask({name: content}, together["frame_file"])["answers"][0]
        for name, content in list(files.items())[:12]
    ]
    assert one_by_one == together["answers"][:12]
    known = json.loads(together["frame_file"])
    wrongs = ["x", "{}", together["frame_file"].replace('"made_for":"', '"made_for":"x')]
    if count == 60:
        layer = known["layer"]
        cut = {"weights": layer["weights"][: len(layer["weights"]) // 2]}
        strange = {"weights": base64.b64encode(np.full(512 * 8, np.nan, "<f4").tobytes()).decode()}
        for changes in (cut, strange, {"biases": layer["biases"][:4]}, {"weights": "?"}):
            wrongs.append(json.dumps({**known, "layer": {**layer, **changes}}))
    for wrong in wrongs:
        assert ask(files, wrong, 422)["field"] == "frame"


def test_the_frame_is_fixed_by_the_first_analysis_that_was_read(local_desk: Desk) -> None:
    desk, case, unread = local_desk, local_desk.case(), local_desk.case("unread")
    for one in (case, unread):
        desk.upload(one, cell_files(12))
        frame = desk.analyze(one)[-1]["frame"]
    desk.identify(case)
    small = {  # cells in the middle of much background, which by themselves are framed otherwise
        f"wide-{i}.png": png(padded(one)) for i, one in enumerate(render(np.arange(12) % 7, seed=6))
    }
    desk.upload(case, small)
    assert desk.analyze(case)[-1]["frame"] == frame
    assert desk.info(case)["frame"] == frame
    other = desk.case("other")
    desk.upload(other, small)
    assert desk.analyze(other)[-1]["frame"] != frame
    # Where nobody has read, a few do not decide for those that come later.
    whole = desk.case("whole")
    desk.upload(whole, cell_files(12) | small)
    desk.upload(unread, small)
    assert desk.analyze(unread)[-1]["frame"] == desk.analyze(whole)[-1]["frame"] != frame
    said = trail_of(desk, unread)[-1]
    assert (said["kind"], said["detail"][:9]) == ("answered again", "12 images")
    shown = ("name", "class", "confidence", "note", "warning", "error")
    first, again = (
        [[cell[name] for name in shown] for cell in desk.cells(one)] for one in (whole, unread)
    )
    assert again == first


def test_a_case_is_not_continued_with_another_frame(packaged: Predictor, tmp_path: Path) -> None:
    with desk_at(tmp_path / "station", packaged) as desk:
        case = desk.filled(6)
    with desk_at(tmp_path / "station", Predictor(PACKAGED, frame="whole", threads=1)) as desk:
        desk.upload(case, cell_files(8, 8))
        refused = desk.ask(
            *("POST", f"/cases/{case}/analysis"), json={"reader": desk.reader("Ann")}, status=409
        )
        assert "another `frame`" in refused.json()["detail"]


def padded(pixels: Any) -> Image.Image:
    whole = Image.new("RGB", (150, 150), tuple(int(one) for one in pixels[0, 0]))
    whole.paste(Image.fromarray(pixels).resize((50, 50)), (50, 50))
    return whole


# --- readers -------------------------------------------------------------------------------------


def test_corrections_are_kept_and_counted(desk: Desk) -> None:
    case = desk.filled()
    cells = desk.cells(case)
    changes = [change(cell, "neutrophil", comment=f"no. {i}") for i, cell in enumerate(cells)]
    answer = desk.correct(case, changes)
    assert [cell["class"] for cell in answer["cells"]] == ["neutrophil"] * 8
    assert [cell["comment"] for cell in answer["cells"]] == [f"no. {i}" for i in range(8)]
    assert all(cell["read"] for cell in answer["cells"])
    assert answer["version"] == desk.info(case)["version"]
    found = answer["differential"]
    assert found == desk.info(case)["differential"]
    assert found == desk.get(f"/cases/{case}/differential", reader=desk.reader("Ann"))
    assert (found["counted"], found["unidentified"]) == (8, 0)
    assert {row["class"]: row["percent"] for row in found["rows"] if row["count"]} == {
        "neutrophil": 100.0
    }
    assert found["warning"].startswith("Only 8 white cells")
    back = [change(cell, "") for cell in answer["cells"]]
    assert [cell["class"] for cell in desk.correct(case, back)["cells"]] == [""] * 8
    none = [{"cell": cell["id"], "from": "", "to": None} for cell in cells]
    taken = desk.correct(case, none)["cells"]
    assert [cell["class"] for cell in taken] == [cell["class"] for cell in cells]
    assert not any(cell["read"] for cell in taken)


@pytest.mark.parametrize(
    ("spoilt", "status", "field"),
    [
        ({"to": "no such class"}, 422, "changes[1].to"),
        ({"cell": "0" * 32}, 404, "changes[1].cell"),
        ({"from": "another class"}, 409, None),
        ({"to": "x" * 300}, 422, "changes.1.to"),
        ({"cell": "no id"}, 422, "changes.1.cell"),
        ({"to": "mono\0cyte"}, 422, "changes.1.to"),
        ({"unknown": 1}, 422, "changes.1.unknown"),
    ],
)
def test_of_corrections_all_are_kept_or_none(
    desk: Desk, spoilt: dict[str, Any], status: int, field: str | None
) -> None:
    case = desk.filled(3)
    before, trail = desk.cells(case), desk.get(f"/cases/{case}/trail")
    changes = [change(cell, "basophil") for cell in before]
    refused = desk.correct(case, [changes[0], changes[1] | spoilt, changes[2]], status=status)
    assert refused.get("field") == field
    assert desk.cells(case) == before
    assert desk.get(f"/cases/{case}/trail") == trail


def test_two_windows_on_one_cell_and_the_second_is_told(desk: Desk) -> None:
    case = desk.filled(2)
    shown = desk.cells(case)
    desk.correct(case, [change(shown[0], "basophil")])
    refused = desk.correct(
        case, [change(shown[0], "monocyte"), change(shown[1], "monocyte")], status=409
    )
    [conflict] = refused["conflicts"]
    assert (conflict["cell"], conflict["class"]) == (shown[0]["id"], "basophil")
    assert conflict["by"] == "Ann"
    assert datetime.fromisoformat(conflict["at"]).tzinfo
    now = desk.cells(case)
    assert (now[0]["class"], now[1]["class"]) == ("basophil", shown[1]["class"])


def test_one_of_two_at_once_wins(desk: Desk) -> None:
    case = desk.filled(1)
    [cell] = desk.cells(case)
    names = ["basophil", "monocyte", "eosinophil", "neutrophil"]

    def name(to: str) -> int:
        sent = {"reader": desk.reader("Ann"), "changes": [change(cell, to)]}
        return desk.ask("POST", f"/cases/{case}/corrections", json=sent).status_code

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(name, names))
    assert sorted(codes) == [200, 409, 409, 409]
    assert desk.cells(case)[0]["class"] == names[codes.index(200)]


def test_two_stations_on_one_database_lose_no_correction(
    desk: Desk, database_url: str, packaged: Predictor, tmp_path: Path
) -> None:
    case = desk.filled(12)
    cells = desk.cells(case)
    desk.correct(case, [change(cell, "basophil") for cell in cells])
    with desk_at(tmp_path / "station", packaged, database_url) as other:
        sent = {"reader": desk.reader("Ann")}

        def name(number: int) -> int:
            of = (desk, other)[number % 2]
            changes = [change({**cells[number], "class": "basophil"}, "monocyte")]
            answer = of.ask("POST", f"/cases/{case}/corrections", json={**sent, "changes": changes})
            return answer.status_code

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(name, range(12))) == [200] * 12
        assert [name(0), name(1)] == [409, 409]
        for one in (desk, other):
            assert {cell["class"] for cell in one.cells(case, "Ann")} == {"monocyte"}
        named = [one["cell"] for one in trail_of(other, case) if one["to"] == "monocyte"]
        assert sorted(named) == sorted(cell["id"] for cell in cells)
        assert other.info(case)["version"] == desk.info(case)["version"]


def test_only_its_readers_correct_a_case(desk: Desk) -> None:
    case = desk.filled(2)
    cells = desk.cells(case)
    refused = desk.correct(case, [change(cells[0], "basophil")], reader="Eve", status=403)
    assert refused["field"] == "reader"
    unknown = {"reader": "0" * 32, "changes": [change(cells[0], "basophil")]}
    refused = desk.ask("POST", f"/cases/{case}/corrections", json=unknown, status=404).json()
    assert refused["field"] == "reader"


def test_the_second_reader_is_blind_until_the_end(desk: Desk) -> None:
    case, ben = desk.filled(8, name="shared"), desk.reader("Ben")
    told = "eosinophil"  # the class by which the first reader's answers are known
    untouched = desk.cells(case, "Ben")
    secret = [one for one in untouched if one["predicted_class"] != told]
    desk.correct(case, [change(one, told, comment="SECRET") for one in secret], reader="Ann")
    desk.act(case, "second", "Ben")
    assert desk.info(case, "Ben")["role"] == "second"
    shown = desk.cells(case, "Ben")
    assert shown == untouched
    differential = desk.get(f"/cases/{case}/differential", reader=ben)
    by_class = {row["class"]: row["count"] for row in differential["rows"]}
    assert by_class[told] == sum(one["class"] == told for one in untouched)
    desk.ask("GET", f"/cases/{case}/agreement", status=409)
    for kind in ("export.csv", "export.json", "report"):
        desk.ask("GET", f"/cases/{case}/{kind}", status=409)
    for path in ("trail", "cells", "differential", ""):
        for params in ({}, {"reader": ben}):
            answer = desk.ask("GET", f"/cases/{case}/{path}".rstrip("/"), params=params, status=200)
            assert "SECRET" not in answer.text
            assert '"named"' not in answer.text
            assert '"confirmed"' not in answer.text
    desk.act(case, "sign", status=409)
    answer = desk.act(case, "finish", "Ben", status=409)
    assert answer["blockers"]
    desk.identify(case, "Ben", "monocyte")
    desk.act(case, "finish", "Ben")
    refused = desk.correct(case, [change(desk.cells(case, "Ben")[0], "basophil")], "Ben", 409)
    assert "finished" in refused["detail"]
    agreement = desk.get(f"/cases/{case}/agreement")
    assert agreement["n"] == 8 - sum(not one["class"] for one in desk.cells(case))
    assert {one["cell"] for one in agreement["differing"]} <= {one["id"] for one in shown}
    assert "SECRET" in desk.ask("GET", f"/cases/{case}/trail").text
    assert "SECRET" in desk.ask("GET", f"/cases/{case}/export.json").text


def test_of_a_signed_case_everybody_sees_what_was_signed(desk: Desk) -> None:
    case = desk.filled(8)
    desk.act(case, "second", "Ben")
    desk.identify(case, "Ben", "basophil")
    desk.act(case, "finish", "Ben")
    blind = desk.get(f"/cases/{case}/agreement")
    seconds = desk.cells(case, "Ben")
    for one in desk.cells(case):
        desk.correct(case, [change(one, "eosinophil")])
    desk.identify(case)
    desk.act(case, "sign")
    for reader in ("Ann", "Ben", "Eve"):
        assert {cell["class"] for cell in desk.cells(case, reader)} == {"eosinophil"}
        info = desk.info(case, reader)
        assert (info["blockers"], info["unseen"]) == ([], [])
        counts = {row["class"]: row["count"] for row in info["differential"]["rows"]}
        assert counts["eosinophil"] == 8
    after = desk.get(f"/cases/{case}/agreement")  # of the two readings, not of what was signed
    assert after["n"] == 8
    alike = sum(one["class"] == "eosinophil" for one in seconds)
    assert after["agree_percent"] == 100 * alike / 8
    assert "after the second had finished" not in blind["note"]
    changed = re.search(r"changed (\d) cell\(s\) after the second had finished", after["note"])
    assert changed
    assert int(changed[1]) >= 6


def test_what_cannot_be_read_is_no_agreement(desk: Desk) -> None:
    case = desk.case()
    desk.upload(case, cell_files(4) | {f"broken-{i}.png": b"no image" for i in range(4)})
    desk.analyze(case)
    desk.act(case, "second", "Ben")
    for reader in ("Ann", "Ben"):
        desk.identify(case, reader)
    desk.act(case, "finish", "Ben")
    assert desk.get(f"/cases/{case}/agreement")["n"] == 4


def test_there_is_one_second_reader_and_it_is_another(desk: Desk) -> None:
    case = desk.filled(2)
    assert desk.act(case, "second", "Ann", status=409)["field"] == "reader"
    desk.act(case, "second", "Ben")
    desk.act(case, "second", "Ben")
    assert desk.act(case, "second", "Eve", status=409)["field"] == "reader"
    assert desk.act(case, "finish", "Ann", status=403)["field"] == "reader"


# --- signed --------------------------------------------------------------------------------------


def test_signing_says_what_is_missing_and_then_freezes(desk: Desk) -> None:
    case = desk.case()
    desk.upload(case, cell_files(8))
    assert desk.act(case, "sign", status=409)["blockers"] == ["Cells not analyzed yet: 8."]
    desk.analyze(case)
    info = desk.info(case)
    refused = desk.act(case, "sign", status=409)
    assert refused["blockers"] == info["blockers"]
    listed = " ".join(info["blockers"])
    assert f"Cells unidentified: {info['counts']['unidentified']}. " in listed
    assert f"Not looked through yet: {', '.join(info['unseen'])}." in listed
    desk.identify(case)
    assert desk.act(case, "sign", "Eve", status=403)["field"] == "reader"
    signed = desk.act(case, "sign")
    assert (signed["status"], signed["signed_by"]) == ("signed", "Ann")
    assert signed["signed_at"]
    assert "signed" in desk.act(case, "sign", status=409)["detail"]
    cells = desk.cells(case)
    ann = {"reader": desk.reader("Ann")}
    desk.correct(case, [change(cells[0], "basophil")], status=409)
    desk.upload(case, cell_files(1, seed=77), status=409)
    desk.ask("PUT", f"/cases/{case}/seen", json={**ann, "classes": ["basophil"]}, status=409)
    desk.act(case, "second", "Ben", status=409)
    assert desk.cells(case) == cells
    desk.analyze(case)
    assert desk.info(case) == signed


def test_a_case_is_renamed_by_its_readers_while_it_is_open(desk: Desk) -> None:
    case = desk.filled(4, name="old name")

    def rename(name: str, reader: str = "Ann", status: int = 200) -> Any:
        sent = {"reader": desk.reader(reader), "name": name}
        return desk.ask("PUT", f"/cases/{case}/name", json=sent, status=status).json()

    assert rename(" Blut 7 ")["name"] == "Blut 7"
    rename("Blut 7")  # which is no change
    assert rename("mine", "Eve", 403)["field"] == "reader"
    assert rename("", status=422)["field"] == "name"
    desk.identify(case)
    desk.act(case, "sign")
    rename("too late", status=409)
    assert desk.info(case)["name"] == "Blut 7"
    events = desk.get(f"/cases/{case}/trail")["items"]
    found = [(one["from"], one["to"]) for one in events if one["kind"] == "renamed"]
    assert found == [("old name", "Blut 7")]


def test_cells_that_come_later_are_looked_at_by_both_readers(desk: Desk) -> None:
    case = desk.filled(6)
    desk.act(case, "second", "Ben")
    for reader in ("Ann", "Ben"):
        desk.identify(case, reader)
    desk.act(case, "finish", "Ben")
    assert desk.info(case)["blockers"] == []
    desk.upload(case, cell_files(12, 8))
    desk.analyze(case)
    for reader in ("Ann", "Ben"):
        came = {cell["class"] for cell in desk.cells(case, reader)[6:]}
        assert came > {""}  # some are set back, in no class
        assert came - {""} == set(desk.info(case, reader)["unseen"])
    assert not desk.info(case)["second_finished"]
    desk.ask("GET", f"/cases/{case}/agreement", status=409)
    desk.identify(case)
    assert desk.info(case)["blockers"] == ["The second reader has not finished."]


def test_reopening_is_possible_and_recorded(desk: Desk) -> None:
    case = desk.signed()
    desk.post(f"/cases/{case}/reopen", {"reader": desk.reader("Ann")}, 422)
    desk.act(case, "reopen", "Eve", status=403, reason="me too")
    opened = desk.act(case, "reopen", reason="the slide was another")
    assert (opened["status"], opened["signed_at"], opened["signed_by"]) == ("open", None, None)
    desk.act(case, "reopen", status=409, reason="once more")
    assert desk.get("/kept")["rows"] == []
    first = desk.cells(case)[0]
    desk.correct(case, [change(first, "basophil")])
    desk.identify(case)
    desk.act(case, "sign")
    kinds = [(one["kind"], one["reader"], one["detail"]) for one in trail_of(desk, case)]
    assert ("reopened", "Ann", "the slide was another") in kinds
    assert [kind for kind, *_ in kinds].count("signed") == 2


def trail_of(desk: Desk, case: str) -> list[dict[str, Any]]:
    return desk.get(f"/cases/{case}/trail")["items"]


def test_the_trail_says_who_when_from_and_to(desk: Desk) -> None:
    case = desk.filled(2)
    cell = desk.cells(case)[0]
    other = "basophil" if cell["class"] != "basophil" else "monocyte"
    desk.correct(case, [change(cell, other)])
    desk.correct(case, [{"cell": cell["id"], "from": other, "to": other, "comment": "sure"}])
    created, added, named, *rest = trail_of(desk, case)
    assert (created["kind"], added["kind"], added["detail"]) == ("created", "added", "2 images")
    assert named == {
        "at": named["at"],
        "reader": "Ann",
        "kind": "named",
        "cell": cell["id"],
        "from": cell["class"],
        "to": other,
        "detail": "",
    }
    assert datetime.fromisoformat(named["at"]) <= datetime.now(UTC)
    assert {(one["kind"], one["to"]) for one in rest} == {
        ("commented", "sure"),
        ("confirmed", other),
    }
    for table in ("UPDATE event SET reader = 'Eve'", "DELETE FROM event"):
        with pytest.raises(Exception, match="never changed"), desk.station.database.write() as one:
            one.execute(text(table))


def test_kept_shows_how_often_the_model_was_right(desk: Desk) -> None:
    case = desk.filled(8)
    cells = [cell for cell in desk.cells(case) if cell["class"]]
    desk.correct(case, [change(cells[0], "not counted")])
    desk.identify(case)
    desk.act(case, "sign")
    kept = desk.get("/kept")
    assert kept["cases"] == 1
    final = {cell["id"]: cell["class"] for cell in desk.cells(case)}
    expected = Counter(
        cell["predicted_class"]
        for cell in desk.cells(case)
        if cell["predicted_class"] == final[cell["id"]]
    )
    totals = Counter(cell["predicted_class"] for cell in desk.cells(case))
    assert {row["class"]: (row["count"], row["total"]) for row in kept["rows"]} == {
        name: (expected[name], total) for name, total in totals.items()
    }
    for row in kept["rows"]:
        assert row["low"] <= row["percent"] <= row["high"]


# --- deleted -------------------------------------------------------------------------------------


def test_deleting_removes_what_no_other_case_holds(desk: Desk) -> None:
    files = cell_files(6)
    names = list(files)
    one, other = desk.signed(6, name="one"), desk.case("other")
    desk.upload(other, {name: files[name] for name in names[3:]})
    quiz = desk.post("/quizzes", {"reader": desk.reader("Ben"), "size": 6}, 201)
    assert len(files_of(desk)) == 12
    desk.ask("DELETE", f"/cases/{one}", status=204)
    desk.ask("GET", f"/cases/{one}", status=404)
    desk.ask("DELETE", f"/cases/{one}", status=404)
    assert len(files_of(desk)) == 6
    shared = {Path(cell["image"]).stem for cell in desk.cells(other)}
    assert {Path(name).stem for name in files_of(desk)} == shared
    [event] = trail_of(desk, one)
    assert (event["kind"], event["reader"], event["cell"]) == ("deleted", "", "")
    assert desk.get(f"/quizzes/{quiz['id']}")["items"] == []
    assert trail_of(desk, other)[0]["kind"] == "created"
    desk.analyze(other)
    assert all(cell["predicted_class"] for cell in desk.cells(other))
    desk.ask("DELETE", f"/cases/{other}", status=204)
    assert files_of(desk) == set()


def test_what_a_stopped_upload_or_deletion_left_is_swept_up(local_desk: Desk) -> None:
    case = local_desk.filled(3)
    kept = files_of(local_desk)
    [(_, content)] = cell_files(1, seed=50).items()
    from hemascope.data.pictures import read_picture
    from hemascope.review.images import encoded

    local_desk.station.images.add(encoded(read_picture(content).image))
    assert len(files_of(local_desk)) == len(kept) + 2
    delete_strays(local_desk.station)
    assert files_of(local_desk) == kept
    assert len(local_desk.cells(case)) == 3


def test_retention_deletes_what_was_signed_long_ago(desk: Desk) -> None:
    old, new, open_one = desk.signed(2, 1, "old"), desk.signed(2, 2, "new"), desk.filled(2, 4)
    with desk.station.database.write() as session:
        case = session.get(Case, old)
        assert case
        case.signed_at = (datetime.now(UTC) - timedelta(days=40)).isoformat()
    assert delete_older(desk.station, 30) == 1
    assert {one["id"] for one in desk.get("/cases")["items"]} == {new, open_one}
    assert [one["kind"] for one in trail_of(desk, old)] == ["deleted"]
    assert len(files_of(desk)) == 8
    assert delete_older(desk.station, 30) == 0


# --- lists, classes, keys ------------------------------------------------------------------------


def test_cases_come_in_pages_the_newest_first(desk: Desk) -> None:
    made = [desk.case(f"case {i}") for i in range(5)]
    found: list[str] = []
    cursor = ""
    while True:
        page = desk.get("/cases", limit=2, cursor=cursor)
        found += [one["id"] for one in page["items"]]
        if len(found) == 2:
            desk.case("between")  # moves nothing on later pages
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == made[::-1]
    for wrong in ("x", "W10=", "eyJhIjoxfQ==", "WyJcdWQ4MDAiLCAieCJd", "WyJcdTAwMDAiLCAieCJd"):
        refused = desk.ask("GET", "/cases", params={"cursor": wrong}, status=422).json()
        assert refused["field"] == "cursor"
    for wrong in (0, 501, "x"):
        desk.ask("GET", "/cases", params={"limit": wrong}, status=422)


def test_cells_come_in_pages_in_order(desk: Desk) -> None:
    case = desk.case()
    desk.upload(case, cell_files(7))
    found: list[int] = []
    cursor = ""
    while cursor is not None:
        page = desk.get(f"/cases/{case}/cells", limit=3, cursor=cursor)
        found += [one["position"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert found == list(range(7))
    import base64

    for place, number in (([10**30], 0), ([-(10**30)], 7), ([5], 1)):
        cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
        got = desk.get(f"/cases/{case}/cells", cursor=cursor)
        assert len(got["items"]) == number


def test_a_summary_says_how_far_a_case_is(desk: Desk) -> None:
    case = desk.filled(8)
    [line] = desk.get("/cases")["items"]
    info = desk.info(case)
    assert (line["status"], line["num_cells"]) == ("open", 8)
    assert line["num_unidentified"] == info["counts"]["unidentified"]
    desk.identify(case)
    desk.act(case, "sign")
    [line] = desk.get("/cases")["items"]
    assert (line["status"], line["num_unidentified"]) == ("signed", 0)


def test_a_case_made_twice_with_one_key_is_one(desk: Desk) -> None:
    sent = {"name": "x", "reader": desk.reader("Ann")}
    key = {"Idempotency-Key": "abc"}

    def make(_: int) -> Any:
        return desk.ask("POST", "/cases", json=sent, headers=key)

    first = make(0).json()["id"]
    assert make(0).json()["id"] == first
    desk.ask("POST", "/cases", json={**sent, "name": "y"}, headers=key, status=409)
    key["Idempotency-Key"] = "def"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(make, range(4)))
    assert {one.status_code for one in answers} <= {201, 409}
    assert len({one.json()["id"] for one in answers if one.status_code == 201}) == 1
    assert len(desk.get("/cases")["items"]) == 2
    key["Idempotency-Key"] = ""  # is none
    assert make(0).json()["id"] != make(0).json()["id"]


def test_an_etag_changes_with_what_is_shown(desk: Desk) -> None:
    case = desk.filled(2)
    params = {"reader": desk.reader("Ann")}

    def ask(etag: str = "") -> Any:
        headers = {"If-None-Match": etag} if etag else {}
        return desk.ask("GET", f"/cases/{case}", params=params, headers=headers)

    etag = ask().headers["ETag"]
    unchanged = ask(etag)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    desk.correct(case, [change(desk.cells(case)[0], "basophil")])
    assert ask(etag).status_code == 200
    etag = ask().headers["ETag"]
    desk.post("/classes", {"name": "smudge", "role": "not_counted"}, 201)
    assert ask(etag).status_code == 200


def test_readers_are_known_by_their_names(desk: Desk) -> None:
    first = desk.post("/readers", {"name": " Ann "}, 201)
    assert first["name"] == "Ann"
    assert desk.post("/readers", {"name": "Ann"}, 200) == first
    for wrong in ("", "  ", "x" * 101, "a\0b", "a\nb", None, 5, "\ud800"):
        content = json.dumps({"name": wrong}).encode()
        answer = desk.ask(
            "POST",
            "/readers",
            content=content,
            headers={"Content-Type": "application/json"},
            status=422,
        )
        assert answer.json()["field"] == "name"
    assert desk.get("/readers")["items"] == [first]


def test_classes_of_the_station_s_own(desk: Desk) -> None:
    before = desk.get("/classes")["items"]
    assert [one["name"] for one in before][-1] == "not counted"
    assert [one["key"] for one in before] == [*"12345678", "0"]
    assert len({one["color"] for one in before}) == 9
    roles = {one["name"]: one["role"] for one in before}
    assert roles["erythroblast"] == "per_100_white"
    assert roles["platelet"] == roles["not counted"] == "not_counted"
    assert roles["neutrophil"] == "white"
    assert not any(one["guessed"] or one["own"] for one in before)
    for name in ("Neutrophil", "not counted", "neutrophil"):
        refused = desk.post("/classes", {"name": name, "role": "white"}, 409)
        assert refused["field"] == "name"
    assert desk.post("/classes", {"name": "x", "role": "red"}, 422)["field"] == "role"
    for i in range(15):
        made = desk.post("/classes", {"name": f"kind {i}", "role": "white"}, 201)
        assert made["own"]
    assert "15" in desk.post("/classes", {"name": "one more", "role": "white"}, 409)["detail"]
    shown = desk.get("/classes")["items"]
    assert [one["name"] for one in shown[8:-1]] == [f"kind {i}" for i in range(15)]
    assert len({one["key"] for one in shown}) == 24
    case = desk.filled(2)
    found = desk.correct(case, [change(desk.cells(case)[0], "kind 3")])["differential"]
    assert {row["class"]: row["count"] for row in found["rows"]}["kind 3"] == 1


def test_a_class_that_a_model_has_learned_keeps_the_role_it_was_given(desk: Desk) -> None:
    for name, role in (("blast", "not_counted"), ("smudge cell", "white")):  # not the usual ones
        desk.post("/classes", {"name": name, "role": role}, 201)
    learned = {"class_names": ["neutrophil", "blast", "smudge cell"]}
    with desk.station.database.read() as session:
        found = {one.name: one for one in desk.station.classes(session, learned)}
    assert [found[name].role for name in learned["class_names"]] == [
        *("white", "not_counted", "white")
    ]
    assert not any(one.guessed or one.own for one in found.values())


_FIVE = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")


def test_a_model_of_five_classes_gives_a_five_part_differential(
    exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    data = tmp_path / "five"  # another laboratory's, with a class set of its own
    for seed, name in enumerate(_FIVE):
        (data / name).mkdir(parents=True)
        pictures = render(np.full(12, BLOOD_CELLS.names.index(name)), seed=seed)
        for i, one in enumerate(pictures):
            (data / name / f"p{i % 3}_{i}.png").write_bytes(png(one))
    args = ("--data", data, "--group-from", r"^(p\d)_", "--out", tmp_path / "model")
    outcome = hemascope("adapt", exported, *args)
    assert outcome.code == 0, outcome.err
    predictor = Predictor(tmp_path / "model", threads=1)
    assert set(predictor.class_names) == set(_FIVE)
    with desk_at(tmp_path / "station", predictor) as desk:
        shown = desk.get("/classes")["items"]
        assert [one["name"] for one in shown[:5]] == list(predictor.class_names)
        assert [one["key"] for one in shown[:5]] == list("12345")
        assert {one["role"] for one in shown[:5]} == {"white"}
        case = desk.case()
        pictures = render(np.full(10, BLOOD_CELLS.names.index("eosinophil")), seed=9)
        desk.upload(case, {f"{i}.png": png(one) for i, one in enumerate(pictures)})
        desk.analyze(case)
        first, *_ = cells = desk.cells(case)
        assert set(first["probs"]) == set(_FIVE)
        desk.correct(case, [change(cell, "eosinophil") for cell in cells[:9]])
        desk.correct(case, [change(cells[9], "basophil")])
        desk.correct(case, [change(cells[0], "platelet")], status=422)
        desk.identify(case)
        found = desk.act(case, "sign")["differential"]
        shares = {row["class"]: row["percent"] for row in found["rows"]}
        assert shares == dict.fromkeys(_FIVE, 0.0) | {"eosinophil": 90.0, "basophil": 10.0}
        assert found["counted"] == 10
        assert found["per_100"] == []
        assert [row["class"] for row in found["not_counted"]] == ["not counted"]
        page = desk.ask("GET", f"/cases/{case}/report", status=200).text
        assert all(f">{name}<" in page for name in _FIVE)
        assert "erythroblast" not in page.casefold()


# --- gallery and quizzes -------------------------------------------------------------------------


def test_signed_cells_are_a_reference(desk: Desk) -> None:
    case, other = desk.filled(8, 3), desk.filled(8, 4)
    mine = desk.cells(other)[0]
    path = f"/cases/{other}/cells/{mine['id']}"
    assert desk.get(f"{path}/similar")["items"] == []
    desk.identify(case)
    desk.act(case, "sign")
    found = desk.get(f"{path}/similar", limit=5)["items"]
    assert len(found) == 5
    assert {one["case"] for one in found} == {case}
    likeness = [one["similarity"] for one in found]
    assert likeness == sorted(likeness, reverse=True)
    classes = {cell["id"]: cell["class"] for cell in desk.cells(case)}
    assert all(classes[one["cell"]] == one["class"] for one in found)
    typical = desk.get("/reference", of="monocyte")["items"]
    assert {one["cell"] for one in typical} == {
        cell for cell, name in classes.items() if name == "monocyte"
    }
    assert desk.get("/reference", of="no such class")["items"] == []
    desk.ask("GET", "/reference", params={"of": "a\0"}, status=422)
    seen = desk.ask("GET", f"{path}/seen-image", status=200)
    with Image.open(io.BytesIO(seen.content)) as image:
        assert image.size == (64, 64)
    map_of = desk.ask("GET", f"{path}/map", params={"of": "basophil"}, status=200)
    with Image.open(io.BytesIO(map_of.content)) as image:
        assert image.mode == "RGBA"
    assert desk.ask("GET", f"{path}/map", params={"of": "x"}, status=404).json()["field"] == "of"
    wrong = f"/cases/{case}/cells/{mine['id']}"  # a cell of another case
    for what in ("similar", "seen-image", "map?of=basophil"):
        desk.ask("GET", f"{wrong}/{what}", status=404)


def test_cells_signed_before_a_model_was_adapted_stay_a_reference(
    packaged: Predictor, tmp_path: Path
) -> None:
    with desk_at(tmp_path / "station", packaged) as desk:
        signed = desk.signed(8, 3)
    adapted = Predictor(threads=1)
    adapted.info = adapted.info.model_copy(update={"head_sha256": "of another last layer"})
    with desk_at(tmp_path / "station", adapted) as desk:
        [model] = desk.get("/models")["items"]
        assert model["sha256"] != packaged.digest
        case = desk.filled(8, 4)
        cell = desk.cells(case)[0]["id"]
        for path in (f"/cases/{case}/cells/{cell}/similar", "/reference?of=monocyte"):
            found = desk.ask("GET", path, status=200).json()["items"]
            assert {one["case"] for one in found} == {signed}
    adapted.graph = adapted.graph.model_copy(update={"sha256": "of another network"})
    with desk_at(tmp_path / "station", adapted) as desk:
        assert desk.get("/reference", of="monocyte")["items"] == []


def test_a_case_of_an_unlike_laboratory_is_answered_by_a_layer_moved_to_it(desk: Desk) -> None:
    case, files = desk.case(), cell_files(64)
    desk.upload(case, files)
    done = desk.analyze(case)[-1]
    assert "the last layer was moved to" in done["frame"]
    assert desk.info(case)["frame"] == done["frame"]
    assert not desk.info(case)["has_maps"]
    cells = desk.cells(case)
    assert all("the last layer was moved" in cell["note"] for cell in cells)
    path = f"/cases/{case}/cells/{cells[0]['id']}/map"
    desk.ask("GET", path, params={"of": "basophil"}, status=404)  # it would speak for another layer
    desk.upload(case, cell_files(65))  # one more is answered as the others were
    desk.analyze(case)
    assert "the last layer was moved" in desk.cells(case)[-1]["note"]
    assert desk.info(case)["frame"] == done["frame"]


def test_a_quiz_is_blind_and_then_says_how_it_went(desk: Desk) -> None:
    ben = desk.reader("Ben")
    desk.post("/quizzes", {"reader": ben}, 409)
    case = desk.signed(8)
    final = {Path(cell["image"]).stem: cell["class"] for cell in desk.cells(case)}
    quiz = desk.post("/quizzes", {"reader": ben, "size": 5}, 201)
    assert quiz["size"] == 5
    assert [item["answer"] for item in quiz["items"]] == [""] * 5
    assert "class" not in json.dumps(quiz)
    path = f"/quizzes/{quiz['id']}/answers"
    for item in quiz["items"]:
        assert quiz["result"] is None
        right = final[Path(item["image"]).stem]
        said = right if item["number"] > 1 else "basophil" if right != "basophil" else "monocyte"
        quiz = desk.post(path, {"number": item["number"], "class": said})
        desk.post(path, {"number": item["number"], "class": said})  # sent twice by a slow net
        refused = desk.post(path, {"number": item["number"], "class": "not counted"}, 409)
        assert refused["field"] == "number"
    result = quiz["result"]
    assert (result["n"], result["agree_percent"]) == (5, 80.0)
    assert result["low"] < 80 < result["high"]
    [line] = desk.get(f"/readers/{ben}/quizzes")["items"]
    assert (line["id"], line["agree_percent"]) == (quiz["id"], 80.0)
    assert desk.post(path, {"number": 99, "class": "basophil"}, 404)["field"] == "number"
    assert desk.post(path, {"number": 1, "class": "no class"}, 422)["field"] == "class"
    desk.ask("GET", f"/quizzes/{'0' * 32}", status=404)
    desk.ask("DELETE", f"/cases/{case}", status=204)
    kept = desk.get(f"/quizzes/{quiz['id']}")
    assert (kept["size"], kept["items"], kept["result"]) == (5, [], result)
    assert desk.get(f"/readers/{ben}/quizzes")["items"] == [line]


# --- exports -------------------------------------------------------------------------------------


def test_exports_say_what_they_stand_on_and_name_no_file(desk: Desk) -> None:
    case = desk.case("=cmd|' /C calc'!A0")
    files = {f"Mr Smith {i}.png": one for i, one in enumerate(cell_files(6).values())}
    desk.upload(case, files)
    desk.analyze(case)
    cells = desk.cells(case)
    desk.correct(
        case,
        [change(cells[0], "monocyte", comment="=1+1"), change(cells[1], "monocyte", comment="+1")],
    )
    desk.identify(case)
    desk.act(case, "sign")
    as_csv = desk.ask("GET", f"/cases/{case}/export.csv", status=200)
    assert as_csv.headers["content-type"].startswith("text/csv")
    disposition = as_csv.headers["content-disposition"]
    assert 'filename="cmd-C-calc-A0.csv"' in disposition
    assert "filename*=UTF-8''%3Dcmd%7C%27%20%2FC%20calc%27%21A0.csv" in disposition
    rows = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert [row["number"] for row in rows] == [*"123456"]
    assert rows[0]["comment"] == "'=1+1"
    assert rows[1]["comment"] == "'+1"
    for row in rows:
        assert not any(value.startswith(("=", "+", "-", "@")) for value in row.values())
        assert row["first_reader"] == "Ann"
        assert row["model"] == PACKAGED
        assert row["signed_at"]
        assert "Research use only" in row["notice"]
    content = desk.ask("GET", f"/cases/{case}/export.json", status=200).json()
    assert content["model"]["name"] == PACKAGED
    assert content["first"]["name"] == "Ann"
    assert [cell["class"] for cell in content["cells"]] == [row["class"] for row in rows]
    assert content["differential"] == desk.info(case)["differential"]
    page = desk.ask("GET", f"/cases/{case}/report", status=200)
    assert page.headers["content-type"].startswith("text/html")
    assert "Research use only" in page.text
    assert "&#39; /C calc&#39;" in page.text
    assert "<script" not in page.text
    for answer in (as_csv, page, desk.ask("GET", f"/cases/{case}/export.json")):
        assert "Smith" not in answer.text


def test_exports_tell_what_was_said_in_html(local_desk: Desk) -> None:
    case = local_desk.case("<script>alert(1)</script>", reader="<b>Ann</b>")
    local_desk.upload(case, cell_files(2), "<b>Ann</b>")
    page = local_desk.ask("GET", f"/cases/{case}/report", status=200).text
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


@pytest.fixture(scope="module")
def station_folder(
    packaged: Predictor, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A folder with three signed cases of two classes and an open one, and their ids."""
    folder = tmp_path_factory.mktemp("signed") / "station"
    with desk_at(folder, packaged) as desk:
        made: list[str] = []
        for seed in (1, 2, 3):
            case = desk.filled(8, seed, name=f"no. {seed}")
            cells = desk.cells(case)
            names = ("monocyte", "neutrophil")
            desk.correct(case, [change(cell, names[i % 2]) for i, cell in enumerate(cells)])
            desk.identify(case)
            desk.act(case, "sign")
            made.append(case)
        made.append(desk.filled(1, 5, name="open"))
    return folder, made


def test_signed_cells_become_data_with_the_case_as_group(
    station_folder: tuple[Path, list[str]], hemascope: Run, tmp_path: Path
) -> None:
    folder, cases = station_folder
    out = tmp_path / "data"
    outcome = hemascope("review", "export", "--as-dataset", out, "--data-dir", folder)
    assert outcome.code == 0, outcome.err
    assert "24 cells of 3 case(s)" in outcome.out
    rows = list(csv.DictReader((out / "cells.csv").read_text().splitlines()))
    assert {row["group"] for row in rows} == set(cases[:3])
    assert "cell-0" not in (out / "cells.csv").read_text()  # no name that a client gave
    dataset = read(out / "cells.csv", classes=tuple(sorted({row["label"] for row in rows})))
    assert sum(len(one) for one in dataset.splits.values()) == 24
    in_splits = [set(one.groups or ()) for one in dataset.splits.values()]
    assert sorted(map(len, in_splits)) == [1, 1, 1]  # a case is never in two of them
    assert set.union(*in_splits) == set(cases[:3])
    again = hemascope("review", "export", "no. 1", "--as-dataset", out, "--data-dir", folder)
    assert again.code == 2
    assert "exists and is not empty" in again.err
    some = tmp_path / "some"
    twice = (cases[0], cases[0])
    outcome = hemascope(*("review", "export", *twice, "--as-dataset", some, "--data-dir", folder))
    assert outcome.code == 0, outcome.err
    assert "8 cells of 1 case(s)" in outcome.out
    assert len(list((some / "images").iterdir())) == 8


@pytest.mark.parametrize(
    ("case", "said"), [("open", "is not signed"), ("none", "there is no case called 'none'")]
)
def test_what_is_not_signed_is_no_data(
    station_folder: tuple[Path, list[str]], hemascope: Run, tmp_path: Path, case: str, said: str
) -> None:
    out = tmp_path / "data"
    outcome = hemascope(
        "review", "export", case, "--as-dataset", out, "--data-dir", station_folder[0]
    )
    assert outcome.code == 2
    assert said in outcome.err
    assert not out.exists()
