"""scim2-tester and scim2-client against rolecall, its store and the emulator.

Both build their models from `/ServiceProviderConfig`, `/ResourceTypes` and `/Schemas`, and know nothing else of the
server. What rolecall grants is read from the emulator.
"""

import pathlib
import tempfile
import time
from collections import Counter

from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_models import PatchOp, PatchOperation, SCIMException, SearchRequest
from scim2_tester import Status, check_server

import harness
import rolecall

# Checks that scim2-tester makes of what the server advertises. A changed number means that checks were lost or gained:
# find out which before changing it.
CHECKS = 135
# The same with the resource types and the extension of this file, without attributes of types for which scim2-tester makes
# values that its own models refuse, and without one that it looks for although it is returned on request only.
SCHEMAS = pathlib.Path(__file__).parents[1] / "fixtures" / "scim" / "schemas.yaml"
NOT_TESTED = ("type: decimal", "type: dateTime", "returned: request")
CHECKS_WITH_SCHEMAS = 204
# Checks that fail and are right to fail: (resource type, check, attribute) -> reason.
EXCEPTIONS = {
    ("User", "check_remove_attribute", "active"): "an account is active or it is not, and the value in force is always "
    "shown: whoever removes `active` keeps the stored value, instead of locking somebody out without a trace",
}


def run_whole(emulator, strictness, schemas=None, checks=CHECKS):
    with rolecall.running(emulator, strictness, schemas) as http:
        results = check_server(SyncSCIMClient(http))
    failures = {}
    for result in results:
        if result.status != Status.SUCCESS:
            attribute = result.data.get("urn") if isinstance(result.data, dict) else None
            failures[result.resource_type, result.title, attribute] = f"{result.status.name}: {result.reason}"
    unexpected = {check: why for check, why in failures.items() if check not in EXCEPTIONS}
    counts = Counter(result.status.name for result in results)
    print(f"    scim2-tester: {len(results)} checks, {dict(counts)}", flush=True)
    assert not unexpected, unexpected
    passing = [check for check in EXCEPTIONS if check not in failures]
    assert not passing, f"no exception is needed any more: {passing}"
    assert len(results) == checks, f"{len(results)} checks instead of {checks}"


def case_scim2_tester_runs_whole(emulator):
    run_whole(emulator, "Explain")


def case_scim2_tester_runs_whole_under_strict(emulator):
    run_whole(emulator, "Strict")


def case_scim2_tester_runs_whole_with_resource_types_from_a_file(emulator):
    lines = SCHEMAS.read_text(encoding="utf-8").splitlines(keepends=True)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.writelines(line for line in lines if not any(kind in line for kind in NOT_TESTED))
        file.flush()
        run_whole(emulator, "Explain", file.name, CHECKS_WITH_SCHEMAS)


class Client:
    """scim2-client, which knows of the server what it discovered, and the policy that its changes lead to."""

    def __init__(self, emulator, http):
        self.emulator = emulator
        self.scim = SyncSCIMClient(http)
        self.scim.discover()
        self.User = self.scim.get_resource_model("User")
        self.Group = self.scim.get_resource_model("Group")
        self.enterprise = self.User.get_extension_model("EnterpriseUser")

    def user(self, account, **more):
        emails = [{"value": f"{account}@example.com", "type": "work", "primary": True}]
        return self.User(user_name=f"{account}@example.com", emails=emails, active=True, **more)

    def patch(self, resource, *operations):
        model = type(resource)
        operations = [PatchOperation(**operation) for operation in operations]
        return self.scim.modify(model, resource.id, PatchOp[model](operations=operations))

    def granted(self, *names):
        """Waits until exactly these people have the role, and checks that they still do after another read."""
        wanted = sorted(f"user:{name}@example.com" for name in names)
        resource = f"projects/{rolecall.PROJECT}/locations/{rolecall.REGION}/services/{rolecall.SERVICE}"
        end = time.monotonic() + rolecall.DEADLINE
        while True:
            members = sorted(harness.members(self.emulator.policy(resource), rolecall.INVOKER))
            if members == wanted:
                return
            assert time.monotonic() < end, f"{members} instead of {wanted}"
            time.sleep(0.05)

    def refused(self, status, call):
        try:
            call()
        except SCIMException as error:
            assert error.status == status, error
            return
        raise AssertionError(f"answered with success instead of {status}")


def whole_life(emulator, strictness):
    """Creates, changes and removes users and groups, and reads the policy after each step."""
    with rolecall.running(emulator, strictness) as http:
        client = Client(emulator, http)
        scim, User, Group = client.scim, client.User, client.Group

        # POST.
        name = {"given_name": "Alice", "family_name": "Example"}
        alice = scim.create(client.user("alice", name=name, external_id="a-1", password="not-kept-0815"))
        bob = scim.create(client.user("bob", external_id="b-1"))
        assert alice.user_name == "alice@example.com" and alice.external_id == "a-1" and alice.password is None, alice
        client.granted()
        group = scim.create(Group(display_name=rolecall.GROUP, external_id="g-1", members=[{"value": alice.id}]))
        assert [member.value for member in group.members] == [alice.id], group
        client.granted("alice")

        # PATCH of a group.
        client.patch(group, {"op": "add", "path": "members", "value": [{"value": bob.id}]})
        client.granted("alice", "bob")
        client.patch(group, {"op": "remove", "path": f'members[value eq "{alice.id}"]'})
        client.granted("bob")
        client.patch(group, {"op": "replace", "path": "members", "value": [{"value": alice.id}, {"value": bob.id}]})
        client.granted("alice", "bob")

        # PUT of a group that was read.
        group = scim.query(Group, group.id)
        group.members = [member for member in group.members if member.value != bob.id]
        group = scim.replace(group)
        client.granted("alice")
        group.members.append(Group.get_field_root_type("members")(value=bob.id))
        group = scim.replace(group)
        assert sorted(member.value for member in group.members) == sorted([alice.id, bob.id]), group
        client.granted("alice", "bob")

        # PATCH of a user: a leaver, who returns, and one who is renamed.
        client.patch(alice, {"op": "replace", "path": "active", "value": False})
        client.granted("bob")
        assert scim.query(User, alice.id).active is False
        client.patch(alice, {"op": "replace", "path": "active", "value": True})
        client.granted("alice", "bob")
        client.patch(bob, {"op": "replace", "path": "userName", "value": "robert@example.com"})
        client.granted("alice", "robert")

        # PUT of a user that was read: department and manager of the extension, then a leaver.
        alice = scim.query(User, alice.id)
        alice[client.enterprise] = client.enterprise(department="Checkout", manager={"value": bob.id})
        alice = scim.replace(alice)
        assert alice[client.enterprise].department == "Checkout", alice
        assert alice[client.enterprise].manager.value == bob.id, alice
        client.granted("alice", "robert")
        alice.active = False
        alice = scim.replace(alice)
        client.granted("robert")
        alice.active = True
        alice = scim.replace(alice)
        client.granted("alice", "robert")

        # DELETE.
        scim.delete(User, bob.id)
        client.refused(404, lambda: scim.query(User, bob.id))
        client.granted("alice")
        group = scim.query(Group, group.id)
        assert [member.value for member in group.members] == [alice.id], group
        scim.delete(Group, group.id)
        client.refused(404, lambda: scim.query(Group, group.id))
        client.granted()
        assert scim.query(User, alice.id).active is True


def case_scim2_client_creates_changes_and_removes_users_and_groups(emulator):
    whole_life(emulator, "Explain")


def case_scim2_client_creates_changes_and_removes_users_and_groups_under_strict(emulator):
    whole_life(emulator, "Strict")


def case_scim2_client_finds_what_it_created(emulator):
    with rolecall.running(emulator, "Explain") as http:
        client = Client(emulator, http)
        scim, User, Group = client.scim, client.User, client.Group
        people = [scim.create(client.user(f"user{number}")) for number in range(7)]
        group = scim.create(Group(display_name=rolecall.GROUP, members=[{"value": user.id} for user in people]))
        client.granted(*(f"user{number}" for number in range(7)))
        found = scim.query(User, query_parameters=SearchRequest(filter='userName eq "USER3@example.com"'))
        assert [user.id for user in found.resources] == [people[3].id], found
        found = scim.query(Group, query_parameters=SearchRequest(filter=f'displayName eq "{rolecall.GROUP}"'))
        assert [one.id for one in found.resources] == [group.id], found
        page = scim.query(User, query_parameters=SearchRequest(start_index=3, count=2, sort_by="userName"))
        assert (page.total_results, page.items_per_page) == (7, 2), page
        assert [user.user_name for user in page.resources] == ["user2@example.com", "user3@example.com"], page
        found = scim.search(search_request=SearchRequest(filter='userName eq "user5@example.com"'))
        assert [user.id for user in found.resources] == [people[5].id], found
        client.refused(409, lambda: scim.create(client.user("USER3")))
        # The groups of a user are readable, and not writable.
        user = scim.query(User, people[0].id, query_parameters=SearchRequest(attributes=["groups"]))
        assert [one.value for one in user.groups] == [group.id], user


def case_scim2_client_changes_are_refused_when_the_version_is_old(emulator):
    with rolecall.running(emulator, "Explain") as http:
        client = Client(emulator, http)
        read = client.scim.create(client.user("alice"))
        client.patch(client.User(id=read.id, user_name="alice@example.com"), {"op": "replace", "path": "title", "value": "x"})
        read.display_name = "Alice"
        client.refused(412, lambda: client.scim.replace(read))


if __name__ == "__main__":
    print("Clients of SCIM", flush=True)
    harness.main(globals())
