"""Who looks at the page, and what they may change.

With an ``[auth]`` section in Streamlit's secrets everybody signs in over OpenID Connect, and the
roles file says who may do what. Without one, whoever sits at this machine is an operator.
"""

import getpass
from collections.abc import Mapping
from typing import Any

import streamlit as st

from services.access import NEEDED, Actor, Role, load_roles, local_actor, may
from services.errors import AccessError

NOBODY = Actor("nobody", Role.NONE)


def here() -> Actor:
    """Whoever looks at this page.

    Raises:
        AccessError: The roles cannot be read.
    """
    if not sign_in_is_configured():
        return local_actor(
            st.get_option("server.address"),
            st.context.ip_address,
            st.context.headers.to_dict(),
            _account(),
        )
    return signed_in(st.user.to_dict())


def signed_in(claims: Mapping[str, Any]) -> Actor:
    """Whom an identity provider vouches for.

    An address that it does not call verified is no name, because with some providers whoever signs
    in chooses it; such a person is known by ``sub``, which roles may name.
    """
    if not claims.get("is_logged_in"):
        return NOBODY
    name = claims.get("email") if claims.get("email_verified") is True else None
    name = name or claims.get("sub")
    return Actor(str(name), load_roles().of(str(name))) if name else NOBODY


def sign_in_is_configured() -> bool:
    """Whether people sign in here."""
    return "is_logged_in" in st.user


def door() -> None:
    """Stop whoever may not read; draw the way in and the way out where people sign in."""
    if not sign_in_is_configured():
        return
    try:
        actor = here()
    except AccessError as error:
        st.error("Nobody can be let in.")
        st.text(str(error))
        st.stop()
    if not st.user.get("is_logged_in"):
        st.title("R1flow", anchor=False)
        st.button("Sign in", on_click=st.login, type="primary")
        st.stop()
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        st.text(f"{actor.name} · {actor.role.word}", width="content")
        st.button("Sign out", on_click=st.logout, type="tertiary")
    if actor.role is Role.NONE:
        st.info("You may not read here. Ask an operator for a role.")
        st.stop()


def button(actor: Actor, change: str, label: str, *, key: str, **kwargs: Any) -> bool:
    """A button for a change; who may not make it sees it greyed out, with the reason."""
    allowed = may(actor, change)
    if not allowed:
        needed = NEEDED[change].word
        kwargs |= {"help": f"To {change} takes the role {needed}; you are {actor.role.word}."}
    kwargs["disabled"] = kwargs.get("disabled", False) or not allowed
    return bool(st.button(label, key=key, **kwargs))


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "local user"
