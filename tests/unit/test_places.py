"""PATH arguments: what a pasted address means."""

from __future__ import annotations

import pytest

from xnatfs.cli.places import Place, parse
from xnatfs.errors import UsageError

HOST = "https://xnat.example.edu"


@pytest.mark.parametrize(
    ("text", "server", "path"),
    [
        ("/projects/P/", "", "/projects/P"),
        ("projects/P", "", "/projects/P"),
        ("XNAT_E00001", "", "/XNAT_E00001"),
        (f"{HOST}/data/projects/P/subjects/S?format=html#x", HOST, "/projects/P/subjects/S"),
        (f"{HOST}/data/archive/projects/P", HOST, "/projects/P"),
        (f"{HOST}/REST/experiments/E/scans/1%20b", HOST, "/experiments/E/scans/1 b"),
        (f"{HOST}/xnat/data/projects/data", f"{HOST}/xnat", "/projects/data"),
        (f"{HOST}:8443/data/subjects/S/3[SLASH]4", f"{HOST}:8443", "/subjects/S/3%2F4"),
        (f"{HOST}/data/", HOST, "/"),
        (
            f"{HOST}/app/action/DisplayItemAction/search_value/XNAT_E00001/search_element/"
            "xnat:mrSessionData/search_field/xnat:mrSessionData.ID/project/P",
            HOST, "/experiments/XNAT_E00001",
        ),
        (
            f"{HOST}/xnat/app/action/DisplayItemAction/search_element/xnat%3AsubjectData/"
            "search_field/xnat%3AsubjectData.ID/search_value/XNAT_S00001/project/P",
            f"{HOST}/xnat", "/projects/P/subjects/XNAT_S00001",
        ),
        (
            f"{HOST}/app/template/XDATScreen_report_xnat_projectData.vm/search_element/"
            "xnat:projectData/search_field/xnat:projectData.ID/search_value/P",
            HOST, "/projects/P",
        ),
    ],
)  # fmt: skip
def test_what_an_address_means(text: str, server: str, path: str) -> None:
    assert parse(text) == Place(server, path)


@pytest.mark.parametrize(
    "text",
    [
        HOST,
        "",
        "http://[x/data/projects/P",
        f"{HOST}/database/projects/P",
        f"{HOST}/app/template/Index.vm",
        f"{HOST}/app/action/DisplayItemAction/search_value/S1/search_element/xnat:subjectData",
        "https://ada:hunter2@xnat.example.edu/data/projects/P",
    ],
)
def test_what_leads_nowhere_is_said(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "hunter2" not in str(caught.value)
