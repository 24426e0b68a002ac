"""Signing in for real: an identity provider, a browser, three roles, and what each may change."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("authlib", reason="signing in needs the extra: pip install 'r1flow[auth]'")

from infra.browser import EXCEPTIONS, Browser, missing_parts, running_browser, running_dashboard
from services.store.ledger import open_ledger
from tests.dashboard import registered, seed
from tests.dashboard.identity_provider import CLIENT, Provider, identity_provider

pytestmark = [
    pytest.mark.skipif(missing_parts() is not None, reason=str(missing_parts())),
    pytest.mark.slow,
]

SECRETS = """
[auth]
redirect_uri = "http://localhost:{{port}}/oauth2callback"
cookie_secret = "of this test alone, and long enough"
client_id = "{client}"
client_secret = "of this test alone"
server_metadata_url = "{provider}/.well-known/openid-configuration"
"""
ROLES = """
default = "none"
viewer = ["reader@example.org"]
operator = ["*@ops.example.org"]
"""
PROMOTE = "//button[contains(., 'Promote version 3')]"


class Door(NamedTuple):
    """A dashboard that asks who one is."""

    address: str
    browser: Browser
    provider: Provider
    store_url: str

    def come_as(self, **claims: object) -> str:
        """Sign in as somebody; the text of the page behind the door."""
        self.provider.claims = {"sub": "number-7", **claims}
        self.browser.open(f"{self.address}/models")
        self.browser.click("//button[contains(., 'Sign in')]")
        self.browser.wait_for("return document.body.innerText.includes('Sign out')", "stayed out")
        self.browser.open(f"{self.address}/models")
        assert self.browser.run(EXCEPTIONS) == 0
        return self.browser.text()

    def leave(self) -> None:
        """Sign out."""
        self.browser.click("//button[contains(., 'Sign out')]")
        self.browser.wait_for("return document.body.innerText.includes('Sign in')", "stayed in")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home = tmp_path_factory.mktemp("home")
    url = f"sqlite:///{home / 'store.db'}"
    seed.seed_store(url, steps=3)
    registered.register(home, url, seed.RUN)
    (home / "roles.toml").write_text(ROLES)
    with identity_provider() as provider:
        secrets = home / ".streamlit" / "secrets.toml"
        secrets.parent.mkdir()
        secrets.write_text(SECRETS.format(client=CLIENT, provider=provider.address))
        environment = {**os.environ, "R1_HOME": str(home), "R1_STORE_URL": url, "HOME": str(home)}
        with running_dashboard(environment) as address, running_browser() as browser:
            # The callback is on localhost, and cookies go by host.
            local = address.replace("127.0.0.1", "localhost")
            yield Door(local, browser, provider, url)


def test_without_signing_in_nothing_is_shown(door: Door) -> None:
    for page in ("", "samples", "models"):
        door.browser.open(f"{door.address}/{page}")
        text = door.browser.text()
        assert "Sign in" in text
        assert seed.RUN not in text
        assert "Promote" not in text


def test_a_viewer_sees_and_may_not_change(door: Door) -> None:
    text = door.come_as(email="reader@example.org", email_verified=True)
    assert "reader@example.org · viewer" in text
    disabled = f'return document.evaluate("{PROMOTE}", document).iterateNext().disabled'
    assert door.browser.run(disabled) is True
    door.leave()


def test_an_operator_promotes_under_the_name_that_was_vouched_for(door: Door) -> None:
    text = door.come_as(email="Ann@ops.example.org", email_verified=True)
    assert "Ann@ops.example.org · operator" in text
    door.browser.click(PROMOTE)
    dialog = "//*[@role='dialog']"
    door.browser.write(f"{dialog}//textarea", "seen signed in\ue009\ue007")
    door.browser.click(f"{dialog}//button[normalize-space(.)='Promote'][not(@disabled)]")
    said = "Version 3 is champion of r1 now"
    door.browser.wait_for(f"return document.body.innerText.includes('{said}')", "said nothing")
    head = open_ledger(door.store_url).head("r1")
    assert head is not None
    assert (head.champion, head.who) == (3, "Ann@ops.example.org")
    door.leave()


@pytest.mark.parametrize("verified", [{"email_verified": False}, {}], ids=["not", "not said"])
def test_an_address_that_nobody_verified_opens_nothing(door: Door, verified: dict) -> None:
    text = door.come_as(email="ann@ops.example.org", **verified)
    assert "number-7 · none" in text
    assert "You may not read here" in text
    assert "Promote" not in text
    door.leave()


def test_the_secrets_are_not_in_the_repository() -> None:
    root = Path(__file__).parents[2]
    assert not list(root.glob("**/secrets.toml"))
