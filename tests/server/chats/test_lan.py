"""The door to the network: always a login, links that count once, a certificate of this machine's own."""

import contextlib
import hashlib
import ipaddress
import socket
import ssl
import threading
from datetime import timedelta

import httpx2
import pytest
from cryptography import x509

from tenth.errors import RequestError, ResourceError
from tenth.server import certificates, lan, sessions
from tenth.server.accounts import Accounts
from tenth.server.chats import events
from tenth.server.config import ServerConfig
from tenth.server.keys import Keys
from tenth.server.state import State

from ..running import TINY, Running

DOOR = "127.0.0.2"  # this machine only, and not where the first door is


@pytest.fixture
def doors(tmp_path, monkeypatch):
    """A server with both doors, and a browser that knows its certificate, as a phone that came by the link."""
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "home"))
    with Running({"tiny": TINY}, tmp_path, lan=True, lan_address=DOOR) as running, phone_of(running.lan) as phone:
        yield running, phone


def phone_of(door):
    trusted = trusting(door.certificate) if door.certificate else True
    return httpx2.Client(base_url=door.url, verify=trusted, timeout=20, trust_env=False,
                         headers={"origin": door.url})


def trusting(certificate):
    """What a device checks that has installed the authority's certificate."""
    context = ssl.create_default_context(cadata=certificate.authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def secret_of(link):
    base, mark, secret = link["url"].partition("/#pair=")
    assert mark
    return base, secret


def link(running, **how):
    return running.post("/api/pairing", {}, **how).json()


def test_a_phone_comes_in_by_a_link_once_and_sees_what_the_desk_sees(doors):
    running, phone = doors
    assert running.get("/api/session").json()["needs_login"] is False  # the desk needs no login, as before
    assert phone.get("/api/session").json() == {"user": None, "needs_login": True, "can_manage": False,
                                                "is_open": False}
    assert phone.get("/api/chats").status_code == 401
    assert phone.get("/").status_code == 200

    made = link(running)
    base, secret = secret_of(made)
    assert base == running.lan.url
    assert made["is_tls"]
    entered = phone.post("/api/session", json={"pairing": secret})
    assert entered.json()["user"]["role"] == "local"
    cookie = entered.headers["set-cookie"].lower()
    assert "secure" in cookie
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    chat = phone.post("/api/chats", json={"title": "from the phone"}).json()
    assert running.get(f"/api/chats/{chat['id']}").json()["chat"]["title"] == "from the phone"

    with phone_of(running.lan) as other:
        again = other.post("/api/session", json={"pairing": secret})
        assert (again.status_code, "set-cookie" in again.headers) == (401, False)
        assert other.get("/api/chats").status_code == 401


def test_of_many_who_try_a_link_at_once_one_comes_in(doors):
    running, _ = doors
    _, secret = secret_of(link(running))
    start, codes = threading.Barrier(8), []

    def come():
        with phone_of(running.lan) as phone:
            start.wait()
            codes.append(phone.post("/api/session", json={"pairing": secret}).status_code)

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes.count(200) == 1
    assert set(codes) <= {200, 401, 429}


def test_a_link_ends(doors, monkeypatch):
    running, phone = doors
    monkeypatch.setattr(sessions, "PAIRING_S", -1.0)
    _, secret = secret_of(link(running))
    assert phone.post("/api/session", json={"pairing": secret}).status_code == 401


def test_no_log_has_the_secret_and_no_address_either(doors, caplog):
    running, phone = doors
    with caplog.at_level("DEBUG"):
        _, secret = secret_of(link(running))
        phone.post("/api/session", json={"pairing": secret})
    assert secret not in caplog.text
    assert not running.app.state.query("SELECT hash FROM pairings")


def test_other_hosts_and_pages_are_kept_out_there_too(doors):
    running, phone = doors
    _, secret = secret_of(link(running))
    phone.post("/api/session", json={"pairing": secret})
    assert phone.post("/api/chats", json={}).status_code == 201
    for headers in ({"host": "evil.example"}, {"host": f"localhost:{running.lan.port}"},
                    {"origin": "https://evil.example"}, {"origin": f"http://{DOOR}:{running.lan.port}"},
                    {"origin": "null"}, {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}):
        assert phone.post("/api/chats", json={}, headers=headers).status_code == 403, headers
        assert phone.get("/api/chats", headers=headers).status_code == 403, headers
    assert phone.post("/api/chats", content="{}", headers={"content-type": "text/plain"}).status_code == 415


def test_a_cookie_of_the_first_door_s_page_counts_for_its_own_pages_only(doors):
    running, phone = doors
    _, secret = secret_of(link(running))
    phone.post("/api/session", json={"pairing": secret})
    del phone.headers["origin"]
    assert phone.get("/api/chats").status_code == 200
    assert phone.post("/api/chats", json={}).status_code == 403


def test_accounts_and_keys_get_links_to_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "home"))
    state = State(tmp_path / "state.db")
    accounts, keys = Accounts(state), Keys(state)
    accounts.new("ada", "correct horse", "admin")
    member = accounts.new("bo", "battery staple")
    key = keys.new("robot", ("infer",))
    small = keys.new("small", ("infer",), user_id=accounts.get("ada").id)  # an admin's key that may only ask
    state.close()
    with Running({"tiny": TINY}, tmp_path, lan=True, lan_address=DOOR) as running:
        owner = running.app.sessions.machines_owner()
        assert (owner.name, owner.role) == ("ada", "admin")
        origin = {"origin": running.url}
        running.http.post("/api/session", json={"name": "bo", "password": "battery staple"})
        for how, expected, may in (({"headers": origin}, member.id, False),
                                   ({"headers": {"x-api-key": key}}, None, False),
                                   ({"headers": {"x-api-key": small}}, owner.owner, False)):
            _, secret = secret_of(link(running, **how))
            with phone_of(running.lan) as phone:
                entered = phone.post("/api/session", json={"pairing": secret}).json()
                assert entered["user"]["role"] == "member"
                assert entered["can_manage"] is may
                assert expected is None or entered["user"]["id"] == expected
                assert phone.get("/api/users").status_code == 403


def test_a_phone_that_was_paired_before_there_were_accounts_has_to_log_in(doors):
    running, phone = doors
    _, secret = secret_of(link(running))
    phone.post("/api/session", json={"pairing": secret})
    assert phone.get("/api/chats").status_code == 200
    Accounts(running.app.state).new("ada", "correct horse", "admin")
    assert phone.get("/api/chats").status_code == 401


def test_sessions_can_be_ended_and_what_they_listen_to_ends_too(doors, monkeypatch):
    monkeypatch.setattr(events, "ASKED_S", 0.1)
    running, phone = doors
    _, secret = secret_of(link(running))
    phone.post("/api/session", json={"pairing": secret})
    running.http.cookies.set(running.app.chats.cookie, "of an older server")
    with running.http.stream("GET", "/api/events") as desk_s, phone.stream("GET", "/api/events") as told:
        lines, desk_lines = told.iter_lines(), desk_s.iter_lines()
        assert "hello" in "".join(next(lines) for _ in range(3))
        running.post("/api/chats", {"title": "before"})
        assert "before" in "".join(next(lines) for _ in range(4))
        assert Accounts(running.app.state).log_out() == 1
        rest = "".join(lines)  # it ends
        running.post("/api/chats", {"title": "after"})
        assert "after" not in rest
        while "after" not in next(desk_lines):  # the desk needs no session
            pass
    assert phone.get("/api/chats").status_code == 401


def test_without_the_door_there_is_no_link(desk):
    answer = desk.post("/api/pairing", {})
    assert answer.status_code == 409
    assert "--lan" in answer.text


def test_unencrypted_is_possible_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "home"))
    with Running({"tiny": TINY}, tmp_path, lan=True, lan_address=DOOR, plain=True) as running:
        made = link(running)
        assert (made["is_tls"], made["url"].partition("://")[0]) == (False, "http")
        with phone_of(running.lan) as phone:
            assert phone.post("/api/session", json={"pairing": secret_of(made)[1]}).status_code == 200
            assert phone.get("/api/chats").status_code == 200


def test_devices_get_the_authority_s_certificate_before_they_come_in(doors, desk):
    running, phone = doors
    for door in (running.http, phone):
        answer = door.get("/tenth.crt")
        assert answer.headers["content-type"] == "application/x-x509-ca-cert"
        assert answer.content == running.lan.certificate.authority
    digest = hashlib.sha256(answer.content).hexdigest().upper()
    assert link(running)["authority"].replace(":", "") == digest
    assert desk.get("/tenth.crt").status_code == 404, "there is no such door"


def test_keys_are_kept_private_and_certificates_made_again_when_they_have_to(tmp_path, monkeypatch):
    first = certificates.certificate_for("10.1.2.3", tmp_path)
    authority = tmp_path / "lan-authority.pem"
    assert [file.stat().st_mode & 0o777 for file in (first.file, authority)] == [0o600, 0o600]
    assert certificates.certificate_for("10.1.2.3", tmp_path) == first
    assert ssl.PEM_cert_to_DER_cert(first.file.read_text().partition("-----BEGIN PRIVATE")[0])
    other = certificates.certificate_for("10.1.2.4", tmp_path)
    assert other.fingerprint != first.fingerprint
    assert other.authority == first.authority, "devices keep trusting a machine whose address changes"
    monkeypatch.setattr(certificates, "RENEWED", certificates.VALID + timedelta(days=1))
    assert certificates.certificate_for("10.1.2.4", tmp_path).fingerprint != other.fingerprint
    first.file.write_text("damaged")
    assert certificates.certificate_for("10.1.2.4", tmp_path).authority == first.authority
    authority.write_text("damaged")
    new = certificates.certificate_for("10.1.2.4", tmp_path)
    assert new.authority != first.authority
    assert accepts(new, "10.1.2.4"), "what the lost one signed is made again"


@pytest.mark.parametrize(("name", "is_allowed"), [
    ("192.168.7.7", True), ("fd00::7", True), ("8.8.8.8", False), ("2606:4700::1111", False), ("example.com", False)])
def test_the_authority_vouches_for_private_addresses_only_whoever_has_its_key(tmp_path, name, is_allowed):
    made = certificates.certificate_for("10.1.2.3", tmp_path)
    signer = certificates._kept_authority(tmp_path / "lan-authority.pem", "10.1.2.3")
    called = x509.DNSName(name) if name == "example.com" else x509.IPAddress(ipaddress.ip_address(name))
    forged = certificates._signed("somebody", signer, timedelta(days=90),
                                  [(x509.SubjectAlternativeName([called]), False)])
    certificates._write(made.file, forged)
    assert accepts(made, name) is is_allowed


def accepts(certificate, name):
    """Whether a device with the authority installed takes the server's certificate for this name's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.file)
    wires = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (trusting(certificate).wrap_bio(*wires, server_hostname=name),
             server.wrap_bio(*wires[::-1], server_side=True))
    for _ in range(4):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                try:
                    side.do_handshake()
                except ssl.SSLCertVerificationError:
                    return False
    return sides[0].cipher() is not None


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "0.0.0.0"])
def test_the_internet_is_no_network_around_this_machine(address):
    with pytest.raises(ResourceError, match="private"):
        lan.check_private(address)


@pytest.mark.parametrize("address", ["192.168.1.5", "10.0.0.1", "100.64.1.1", "169.254.3.3", "fd00::1"])
def test_private_networks_are(address):
    lan.check_private(address)


@pytest.mark.parametrize("settings", [{"lan": True, "host": "0.0.0.0"}, {"plain": True}, {"lan_address": "10.0.0.1"},
                                      {"lan": True, "lan_address": "home"}])
def test_settings_that_do_not_go_together(settings):
    with pytest.raises(RequestError):
        ServerConfig(**settings)


def test_this_machine_s_own_address_is_one_that_it_can_listen_at():
    try:
        found = lan.own_address()
    except ResourceError:
        pytest.skip("this machine is in no network")
    with socket.socket() as sock:
        sock.bind((found, 0))
