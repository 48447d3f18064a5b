"""Where the application is, who may set things up, and how answers are checked."""

import os

import requests

BASE = os.environ["BASE_URL"]
API = f"{BASE}/api"
LITELLM = os.environ["LITELLM_URL"]
ADMIN = {"X-Admin-Key": os.environ["ADMIN_KEY"]}


def named(name):
    """An id that no other test has."""
    return f"{name}-{os.environ['SUFFIX']}"


def bearer(key):
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def good(response):
    """The body of a successful answer."""
    assert response.status_code == 200, f"{response.request.method} {response.url}: {response.status_code} {response.text}"
    return response.json()


def refused(response, status, detail):
    """Checks that an answer is this error."""
    got = (response.status_code, response.json().get("detail"))
    assert got == (status, detail), f"{response.request.method} {response.url}: {got}, expected {(status, detail)}"


def same(got, expected):
    assert got == expected, f"{got!r}, expected {expected!r}"


def has(got, expected):
    """Checks that an object has these members."""
    same({name: got.get(name) for name in expected}, expected)


def admin_post(path, body):
    return good(requests.post(f"{API}{path}", headers=ADMIN, json=body))


def set_up(groups, credits=1000, **fields):
    """An organization with a team that may use these model groups: the team, as it was created."""
    organization = named("org_acme")
    admin_post("/organizations/create", {"organization_id": organization, "name": "ACME"})
    for name, models in groups.items():
        listed = [{"model_name": model, "priority": priority} for priority, model in enumerate(models)]
        admin_post("/model-groups/create", {"group_name": name, "display_name": name, "models": listed})
    team = {
        "organization_id": organization,
        "team_id": named("team_engineering"),
        "team_alias": "Engineering",
        "model_groups": list(groups),
        "credits_allocated": credits,
    }
    return admin_post("/teams/create", {**team, **fields})
