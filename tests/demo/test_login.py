"""R§6: who may come in, with what, for how long."""

import re


def cookie(answer):
    return {"Cookie": f"JSESSIONID={answer.cookies()['JSESSIONID']}"}


def test_basic_opens_a_session(client):
    """R§6: JSESSIONID is HttpOnly; every reply tells the idle time, quotes included."""
    answer = client.get("/data/JSESSION")
    cookies = answer.cookies()
    assert re.fullmatch(r"[0-9A-F]{32}", cookies["JSESSIONID"])
    assert answer.body.decode() == cookies["JSESSIONID"]
    assert re.fullmatch(r'"\d{13},900000"', cookies["SESSION_EXPIRATION_TIME"])
    assert any("HttpOnly" in it for it in answer.headers.get_all("Set-Cookie"))
    csrf = client.get("/data/JSESSION?CSRF=true").body.decode()
    assert re.fullmatch(r"[0-9A-F]{32}; XNAT_CSRF=[0-9a-f-]{36}", csrf)


def test_cookie_is_enough(client):
    """R§6: within a session Basic is not looked at again."""
    known = cookie(client.get("/data/auth"))
    answer = client.as_(None).ask("GET", "/data/auth", headers=known)
    assert answer.body == b"User 'admin' is logged in"
    assert "JSESSIONID" not in answer.cookies()
    wrong = client.ask("GET", "/data/auth", headers=known, password="wrong")
    assert wrong.status == 200


def test_logout(client):
    """R§6: DELETE ends the session; PUT is 405."""
    known = cookie(client.get("/data/auth"))
    nobody = client.as_(None)
    assert nobody.ask("DELETE", "/data/JSESSION", headers=known).status == 200
    assert nobody.ask("GET", "/data/auth", headers=known).status == 401
    assert client.put("/data/JSESSION").status == 405


def test_expired_session_with_basic_logs_in_again(server, client):
    """R§6: the robust mode; the reply brings a new cookie."""
    known = cookie(client.get("/data/auth"))
    server.expire_sessions()
    answer = client.ask("GET", "/data/auth", headers=known)
    assert answer.status == 200
    assert cookie(answer) != known


def test_closed_site(client):
    """R§6: 401 with a challenge; JSESSION is open all the same, but not with a wrong password."""
    nobody = client.as_(None)
    answer = nobody.get("/data/projects")
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert nobody.get("/data/auth").status == 401
    assert nobody.get("/data/JSESSION").status == 200
    assert client.ask("GET", "/data/JSESSION", password="wrong").status == 401
    assert nobody.get("/xapi/siteConfig/buildInfo").json()["version"] == "1.8.11"
    assert nobody.get("/xapi/siteConfig/buildInfo/version").body == b"1.8.11"


def test_browsers_are_sent_to_the_login_page(client):
    """R§6: 302, and then HTML with status 200."""
    answer = client.as_(None).get("/data/projects", User_Agent="Mozilla/5.0 (X11)")
    assert answer.status == 302
    assert answer.headers["Location"] == "/app/template/Login.vm"
    page = client.as_(None).get(answer.headers["Location"])
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html")


def test_open_site(start, accession):
    """R§6: no error, but a guest."""
    _server, client = start(open_site=True)
    guest = client.as_(None)
    assert guest.get("/data/auth").body == b"User 'guest' is logged in"
    assert [it["ID"] for it in guest.get("/data/projects").rows()] == ["PUB000"]
    assert guest.get("/data/projects/PVT000").status == 404
    assert guest.send("/data/projects/PUB000/resources/R/files/x", b"x").status == 200
    assert guest.get("/data/projects/PUB000/resources?format=json").rows() == []


def test_form_login(client):
    """R§12.5: /data/services/auth."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    nobody = client.as_(None)
    for verb in ("PUT", "POST"):
        body = b"username=reader&password=reader"
        answer = nobody.ask(verb, "/data/services/auth", body, form)
        assert answer.status == 200
        known = {"Cookie": f"JSESSIONID={answer.body.decode()}"}
        assert b"'reader'" in nobody.ask("GET", "/data/auth", headers=known).body
    wrong = nobody.ask("PUT", "/data/services/auth", b"username=reader&password=x", form)
    assert wrong.status == 401
    assert b"<h3>The request requires user authentication</h3>" in wrong.body


def test_alias_tokens(client):
    """R§6: issue, use as Basic, validate, show, invalidate."""
    token = client.as_("reader").get("/data/services/tokens/issue").json()
    assert list(token) == ["alias", "created", "disabled", "enabled", "estimatedExpirationTime",
                           "id", "secret", "singleUse", "timestamp", "validIPAddresses",
                           "xdatUserId"]  # fmt: skip
    assert token["xdatUserId"] == "reader"
    assert len(token["secret"]) == 64
    alias = client.as_(token["alias"])
    answer = alias.ask("GET", "/data/auth", password=token["secret"])
    assert answer.body == b"User 'reader' is logged in"
    assert alias.ask("GET", "/data/auth", password="wrong").status == 401
    check = f"/data/services/tokens/validate/{token['alias']}"
    assert client.get(f"{check}/{token['secret']}").json() == {"valid": "reader"}
    assert "valid" not in client.get(f"{check}/wrong").json()
    shown = client.as_("reader").get("/data/services/tokens/show").json()
    assert token["alias"] in [it["alias"] for it in shown]
    gone = f"/data/services/tokens/invalidate/{token['alias']}"
    assert client.as_("member").get(gone).status == 404
    assert client.as_("reader").get(gone).json() == {"result": "OK"}
    assert alias.ask("GET", "/data/auth", password=token["secret"]).status == 401
    assert client.get("/data/services/tokens/issue/user/member").json()["xdatUserId"] == "member"
    assert client.as_("reader").get("/data/services/tokens/issue/user/member").status == 403
    assert client.as_(None).get("/data/services/tokens/issue").status == 401


def test_lock_out(start):
    """R§6: 20 failures lock the account, right password or not."""
    _server, client = start()
    reader = client.as_("reader")
    for _ in range(19):
        assert reader.ask("GET", "/data/auth", password="wrong").status == 401
    assert reader.get("/data/auth").status == 200
    for _ in range(20):
        reader.ask("GET", "/data/auth", password="wrong")
    assert reader.get("/data/auth").status == 401
    assert client.get("/data/auth").status == 200


def test_session_cap(start):
    """R§6: over the limit the right password is a 401."""
    _server, client = start(max_sessions=2)
    assert [client.get("/data/auth").status for _ in range(3)] == [200, 200, 401]
    assert client.as_("reader").get("/data/auth").status == 200


def test_idle_sessions_expire(start):
    """R§6."""
    import time

    _server, client = start(session_idle_s=0.2)
    known = cookie(client.get("/data/auth"))
    time.sleep(0.4)
    assert client.as_(None).ask("GET", "/data/auth", headers=known).status == 401


def test_provider_before_the_name(client):
    """R§6: `provider/username`."""
    assert client.as_("localdb/admin").ask("GET", "/data/auth", password="admin").status == 200


def test_maintenance(start):
    _server, client = start(maintenance=True)
    assert client.get("/data/projects").status == 503


def test_context_path(start, accession):
    """Everything below /xnat; cookies are for that path."""
    server, client = start(context_path="/xnat")
    assert server.url.endswith("/xnat")
    answer = client.get(f"{accession}/resources/QC/files/qc.csv")
    assert answer.body.startswith(b"scan")
    files = client.get(f"{accession}/resources/QC/files?format=json").json()["ResultSet"]
    assert files["Columns"] == [{"key": "URI", "serverRoot": "/xnat"}]
    assert any("Path=/xnat" in it for it in answer.headers.get_all("Set-Cookie"))
