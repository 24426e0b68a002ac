from pathlib import Path

import pytest

from services.access import NEEDED, Actor, Role, load_roles, local_actor, may, require
from services.control import Control
from services.errors import AccessError
from services.store.ratings import Rating, now

LOCAL = {"Host": "localhost:8501"}


def write(folder: Path, text: str) -> dict[str, str]:
    (folder / "roles.toml").write_text(text, encoding="utf-8")
    return {"R1_HOME": str(folder)}


def test_names_and_domains_have_roles(tmp_path: Path) -> None:
    roles = load_roles(
        write(
            tmp_path,
            'default = "none"\n'
            'reviewer = ["*@example.org", "both@example.org"]\n'
            'operator = ["Name@Example.org", "both@example.org"]\n',
        )
    )
    assert roles.of("name@example.org") is Role.OPERATOR
    assert roles.of("both@example.org") is Role.OPERATOR
    assert roles.of("other@example.org") is Role.REVIEWER
    assert roles.of("other@elsewhere.example.org") is Role.NONE


def test_without_a_file_everybody_signed_in_is_a_viewer(tmp_path: Path) -> None:
    assert load_roles({"R1_HOME": str(tmp_path)}).of("name@example.org") is Role.VIEWER


@pytest.mark.parametrize(
    "text", ['owner = ["name@example.org"]', 'operator = "name@example.org"', "operator = ["]
)
def test_a_roles_file_that_cannot_be_understood_gives_nobody_a_role(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(AccessError, match=r"roles\.toml"):
        load_roles(write(tmp_path, text))


def test_a_roles_file_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="cannot read"):
        load_roles({"R1_ROLES": str(tmp_path / "none.toml")})


def test_somebody_at_this_machine_is_an_operator() -> None:
    assert local_actor("127.0.0.1", None, LOCAL, "me") == Actor("me", Role.OPERATOR)
    assert local_actor("localhost", "::1", {"host": "[::1]:80"}, "me").role is Role.OPERATOR


@pytest.mark.parametrize(
    ("listens", "comes_from", "headers"),
    [
        ("0.0.0.0", None, LOCAL),
        (None, None, LOCAL),
        ("127.0.0.1", "192.0.2.7", LOCAL),
        ("127.0.0.1", None, {"Host": "rebound.example.org"}),
        ("127.0.0.1", None, {}),
        ("127.0.0.1", None, {**LOCAL, "X-Forwarded-For": "192.0.2.7"}),
        ("127.0.0.1", None, {**LOCAL, "Forwarded": "for=192.0.2.7"}),
    ],
    ids=["bound to all", "bound to any", "from afar", "rebound", "no host", "proxy", "proxy 2"],
)
def test_anybody_else_only_reads(
    listens: str | None, comes_from: str | None, headers: dict[str, str]
) -> None:
    assert local_actor(listens, comes_from, headers, "me").role is Role.VIEWER


@pytest.mark.parametrize("change", NEEDED)
def test_each_change_asks_for_its_role(change: str) -> None:
    needed = NEEDED[change]
    for role in Role:
        actor = Actor("name", role)
        assert may(actor, change) == (role >= needed)
        if role < needed:
            with pytest.raises(AccessError, match=f"may not {change}"):
                require(actor, change)
        else:
            require(actor, change)


def test_no_change_gets_past_the_door(tmp_path: Path) -> None:
    """Every method of the door refuses a viewer before it touches anything."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    control, viewer = Control(tmp_path, url), Actor("viewer", Role.VIEWER)
    rating = Rating("x", "q", "a", "1", "t", "b", "2", "t", "left", "", now())
    arguments: dict[str, tuple[tuple[object, ...], dict[str, object]]] = {
        "promote": (("r1", 1), {"why": "so", "seen": 0}),
        "roll_back": (("r1",), {"why": "so"}),
        "rate": ((rating,), {}),
        "launch": (("tiny", ()), {}),
        "stop": (("launch",), {}),
        "launch_deployment": (("id", {}), {}),
        "cancel_flow_run": (("id",), {}),
        "decide": ((1,), {"approve": True, "why": "so"}),
    }
    doors = [name for name in vars(Control) if not name.startswith("_")]
    assert set(doors) <= set(arguments)
    for name in doors:
        positional, named = arguments[name]
        with pytest.raises(AccessError):
            getattr(control, name)(viewer, *positional, **named)
    assert list(tmp_path.iterdir()) == []
