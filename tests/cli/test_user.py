"""Accounts from the command line: made, changed, used, removed with all they own."""

import json
import os
import subprocess
import sys

import pytest

from tenth.server.accounts import Accounts
from tenth.server.chats.search import open_index
from tenth.server.chats.store import Chats
from tenth.server.keys import Keys
from tenth.server.state import State, state_place


@pytest.fixture
def state(tenth):
    """The state that the command line uses; ``tenth`` sets its folder."""
    opened = State(state_place())
    yield opened
    opened.close()


def test_an_account_is_made_changed_and_removed_with_all_it_owns(tenth, state):
    assert tenth("user", "new", "bo", stdin="long enough").code == 2  # the first one has to be an admin's
    made = tenth("user", "new", "ada", "--admin", "--requests-per-minute", "30", "--json", stdin="correct horse\n")
    assert json.loads(made.out)["role"] == "admin"
    assert json.loads(made.out)["requests_per_minute"] == 30
    assert "correct horse" not in made.out + made.err
    accounts = Accounts(state)
    ada = accounts.check("ada", "correct horse")
    assert ada is not None
    assert accounts.check("ada", "correct horse\n") is None

    assert "password" in tenth("user", "new", "bo", "--no-password").err
    bo = accounts.get("bo")
    key = tenth("key", "new", "bo-phone", "--account", "bo").out.strip()
    assert Keys(state).find(key).caller.owner == bo.id
    chats = Chats(state, open_index(state))
    chats.add(bo.id, "mine", None, {})

    assert tenth("user", "change", "bo", "--admin", "--concurrent", "2").code == 0
    assert (accounts.get("bo").role, accounts.get("bo").concurrent) == ("admin", 2)
    wide = tenth("key", "new", "wide", "--account", "bo", "--scope", "infer", "--scope", "accounts").out.strip()
    assert Keys(state).find(wide).caller.scopes == ("infer", "accounts")
    assert tenth("user", "change", "bo", "--member", "--concurrent", "0").code == 0
    assert (accounts.get("bo").role, accounts.get("bo").concurrent) == ("member", None)
    assert Keys(state).find(wide).caller.scopes == ("infer",)
    assert tenth("user", "change", "ada", "--member").code == 2  # the last admin
    assert tenth("user", "change", "bo", "--password", stdin="another long one\n").code == 0
    assert accounts.check("bo", "another long one") is not None

    listed = tenth("user", "list").out.splitlines()
    assert [line.split()[0] for line in listed] == ["ada", "bo"]
    assert "30 requests/min" in listed[0]
    assert json.loads(tenth("user", "remove", "bo", "--json").out)["id"] == bo.id
    assert chats.all(bo.id) == []
    assert Keys(state).find(key) is None
    assert [one["name"] for one in json.loads(tenth("user", "list", "--json").out)] == ["ada"]


def test_sessions_are_ended(tenth, state):
    from tenth.server.sessions import Sessions

    accounts, keys = Accounts(state), Keys(state)
    accounts.new("ada", "correct horse", "admin")
    accounts.new("bo", "battery staple")
    sessions = Sessions(state, accounts, keys)
    ada, bo = (sessions.log_in(*who, "") for who in (("ada", "correct horse"), ("bo", "battery staple")))
    assert tenth("user", "logout", "bo").out == "ended 1 sessions\n"
    assert sessions.find(bo) is None
    assert sessions.find(ada) is not None
    assert json.loads(tenth("user", "logout", "--json").out) == {"ended_sessions": 1}
    assert sessions.find(ada) is None


@pytest.mark.parametrize(("words", "stdin"), [
    (("user", "new"), "x"), (("user", "frobnicate", "x"), ""), (("user", "list", "ada"), ""),
    (("user", "new", "ada", "--admin"), ""),
    (("user", "new", "ada", "--admin"), "short\n"), (("user", "new", "a/b", "--admin"), "long enough\n"),
    (("user", "remove", "nobody"), ""), (("user", "change", "nobody", "--admin"), ""),
    (("user", "logout", "nobody"), ""), (("key", "new", "k", "--account", "nobody"), ""),
    (("user", "remove", "\udcff"), ""), (("key", "revoke", "\udcff"), ""),
    (("key", "new", "k", "--account", "\udcff"), ""),
])  # fmt: skip
def test_what_cannot_be_is_told_in_a_line(tenth, words, stdin):
    result = tenth(*words, stdin=stdin)
    assert result.code == 2
    assert result.err.startswith("tenth: ")
    assert "Traceback" not in result.err


def test_ctrl_d_in_place_of_a_password_is_told_in_a_line(shell_env):
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "-m", "tenth", "user", "new", "ada", "--admin"], stdin=theirs,
                               stderr=subprocess.PIPE, env=shell_env, start_new_session=True)
    os.close(theirs)
    said = b""
    while b"password for ada: " not in said and (more := os.read(process.stderr.fileno(), 4096)):
        said += more
    os.write(ours, b"\x04")
    said += process.communicate(timeout=90)[1]
    os.close(ours)
    assert process.returncode == 2
    assert b"tenth: a password is needed\nhint: " in said


def test_a_password_that_is_not_utf_8_is_refused(shell_env):
    done = subprocess.run([sys.executable, "-m", "tenth", "user", "new", "ada", "--admin"], input=b"long \xff enough\n",
                          capture_output=True, env=shell_env, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"tenth: standard input is not UTF-8: byte 0xff at position 5\n")
