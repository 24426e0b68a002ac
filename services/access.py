"""Who may change what: three roles, a file that gives them, and one question to ask.

A *viewer* reads, a *reviewer* also judges (ratings, approvals), an *operator* also acts (launch,
cancel, promote, roll back). Who signs in gets the role of the roles file; whoever does not sign in
is an operator on this machine's own loopback address and a viewer everywhere else. The file is
``R1_ROLES``, else ``roles.toml`` in ``R1_HOME``:

    default = "viewer"                     # of who is signed in and named nowhere; or "none"
    reviewer = ["name@example.org"]
    operator = ["*@ops.example.org"]       # a whole domain

Names are the e-mail addresses that the identity provider calls verified (``email_verified``), else
its ``sub``.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from services.errors import AccessError


class Role(IntEnum):
    """What somebody may do; a higher one may do all that a lower one may."""

    NONE = 0
    """Not even read."""
    VIEWER = 1
    REVIEWER = 2
    OPERATOR = 3

    @property
    def word(self) -> str:
        """As the roles file and the pages say it."""
        return self.name.lower()


NEEDED: Final[Mapping[str, Role]] = {
    "rate answers": Role.REVIEWER,
    "decide on approvals": Role.REVIEWER,
    "promote": Role.OPERATOR,
    "roll back": Role.OPERATOR,
    "launch runs": Role.OPERATOR,
    "cancel runs": Role.OPERATOR,
}
"""Every change that can be asked for, and the least role for it."""


class Actor(NamedTuple):
    """Somebody who asks for something."""

    name: str
    """Written down with every change."""
    role: Role


@dataclass(frozen=True, slots=True)
class Roles:
    """Names and patterns of names, by role."""

    default: Role = Role.VIEWER
    """Of who is signed in and named nowhere."""
    named: Mapping[str, Role] = field(default_factory=dict)

    def of(self, name: str) -> Role:
        """The role of a signed-in name; the name itself counts before its domain."""
        name = name.strip().lower()
        domain = "*@" + name.rpartition("@")[2]
        return self.named.get(name, self.named.get(domain, self.default))


def load_roles(environment: Mapping[str, str] = os.environ) -> Roles:
    """Read the roles file; without one everybody who signs in is a viewer.

    Raises:
        AccessError: The file is missing although ``R1_ROLES`` names it, or says something unknown.
    """
    asked = environment.get("R1_ROLES")
    path = Path(asked or Path(environment.get("R1_HOME") or ".r1") / "roles.toml")
    if not asked and not path.exists():
        return Roles()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AccessError(f"cannot read the roles in {path}: {error}", "Mend that file") from error
    named: dict[str, Role] = {}
    default = _role(str(content.pop("default", "viewer")), path)
    for word in sorted(content, key=lambda word: _role(word, path)):
        names = content[word]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise AccessError(f"{word} in {path} is no list of names", 'Write it as ["NAME", …]')
        for name in names:  # named twice: the higher role, which comes later
            named[name.strip().lower()] = _role(word, path)
    return Roles(default, named)


def local_actor(
    listens_on: str | None,
    comes_from: str | None,
    headers: Mapping[str, str],
    user: str,
) -> Actor:
    """Who somebody is that did not sign in: an operator only where nobody else can be.

    Args:
        listens_on: Address that the server is bound to; None if it is bound to all.
        comes_from: Address of the other end; None if it is this machine.
        headers: Of the request. A page of another site that leads a browser here gives itself away
            by its Host, and a proxy by what it forwards.
        user: Name of the account that the server runs under.
    """
    names = {name.lower(): value for name, value in headers.items()}
    forwarded = names.keys() & {"forwarded", "x-forwarded-for", "x-real-ip"}
    host = urlsplit(f"//{names.get('host', '')}").hostname
    local = (
        _is_loopback(listens_on)
        and (comes_from is None or _is_loopback(comes_from))
        and _is_loopback(host)
        and not forwarded
    )
    return Actor(user, Role.OPERATOR) if local else Actor("somebody unknown", Role.VIEWER)


def _is_loopback(address: str | None) -> bool:
    if address == "localhost":
        return True
    try:
        return address is not None and ip_address(address).is_loopback
    except ValueError:
        return False


def require(actor: Actor, change: str) -> None:
    """Refuse a change that the actor's role does not allow.

    Raises:
        AccessError: The role is too low.
        KeyError: There is no such change.
    """
    needed = NEEDED[change]
    if actor.role < needed:
        raise AccessError(
            f"{actor.name} is {actor.role.word} and may not {change}",
            f"That takes the role {needed.word}; roles are given in roles.toml of R1_HOME",
        )


def may(actor: Actor, change: str) -> bool:
    """Whether ``require`` would let it pass."""
    return actor.role >= NEEDED[change]


def _role(word: str, path: Path) -> Role:
    try:
        return Role[word.upper()]
    except KeyError:
        raise AccessError(
            f"{path} knows no role {word!r}",
            f"Choose one of {', '.join(role.word for role in Role)}",
        ) from None
