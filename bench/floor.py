"""The floor: a bare Python/SQLite program that writes the same rows as rolecall for the same requests.

The schema is rolecall's own, read from its migrations; WAL, `synchronous=FULL`, one transaction a request. There is no
HTTP and no validation: the remaining cost is that of the disk and of SQLite from Python.
"""

import glob
import hashlib
import json
import os
import sqlite3
import threading
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROVIDER = "okta"
ACTOR = "idp:okta/a"


class Floor:
    """One database and one connection to it. Every method that writes commits before it returns."""

    def __init__(self, path, create=True):
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None, timeout=60)
        self.db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
        if create:
            # SQLite has it since 3.43; Python may come with an older one.
            self.db.create_function("octet_length", 1, lambda text: None if text is None else len(text.encode()))
            for migration in sorted(glob.glob(os.path.join(ROOT, "src", "store", "sqlite", "migrations", "*.sql"))):
                with open(migration, encoding="utf-8") as file:
                    self.db.executescript(file.read())

    def log(self, action, subject, name, change):
        """Writes the event, the counter and the audit row of a change of the directory."""
        now = time.time_ns()
        seq = self.db.execute("SELECT coalesce(max(seq), 0) + 1 FROM events").fetchone()[0]
        self.db.execute("INSERT INTO events (seq, provider, at, change) VALUES (?, ?, ?, ?)",
                        (seq, PROVIDER, now, json.dumps(change)))
        audit_seq, previous = self.db.execute(
            "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone() or (0, "")
        person = None
        if name:
            self.db.execute("INSERT INTO people (subject, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (subject, name))
            person = self.db.execute("SELECT id FROM people WHERE subject = ? AND name = ?", (subject, name)).fetchone()[0]
        row = [audit_seq + 1, now, ACTOR, str(uuid.uuid4()), json.dumps([seq]), action, subject, "acknowledged"]
        digest = hashlib.sha256((previous + json.dumps(row)).encode()).hexdigest()
        self.db.execute(
            "INSERT INTO audit (seq, at, actor, request_id, cause_seqs, action, subject, outcome, person, hash)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, person, digest))

    def create_user(self, name):
        user, now, email = uuid.uuid4(), time.time_ns(), f"{name}@example.com"
        resource = json.dumps(user_resource(name))
        emails = json.dumps([{"value": email, "kind": "work", "primary": True}])
        self.db.execute("BEGIN IMMEDIATE")
        position = self.db.execute(
            "INSERT INTO users (provider, id, active, user_name, user_name_fold, external_id, emails, resource, version,"
            " created_at, updated_at) VALUES (?, ?, 1, ?, ?, ?, ?, ?, 1, ?, ?)",
            (PROVIDER, user.bytes, email, email, f"00u-{name}", emails, resource, now, now)).lastrowid
        self.db.execute("INSERT INTO user_emails (user, value_fold, kind_fold, provider) VALUES (?, ?, 'work', ?)",
                        (position, email, PROVIDER))
        self.db.execute("INSERT INTO counters (provider, users, groups) VALUES (?, 1, 0)"
                        " ON CONFLICT (provider) DO UPDATE SET users = users + 1", (PROVIDER,))
        self.log("user.create", str(user), email, {"userUpserted": {"id": str(user), "active": True, "userName": email,
                 "externalId": f"00u-{name}", "emails": [{"value": email, "kind": "work", "primary": True}]}})
        self.db.execute("COMMIT")
        return user

    def create_group(self, name, size):
        """A group with `size` members, in one transaction: set-up, not measured."""
        group, now = uuid.uuid4(), time.time_ns()
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute(
            "INSERT INTO groups (provider, id, display_name, display_name_fold, resource, member_count, version, created_at,"
            " updated_at) VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?)",
            (PROVIDER, group.bytes, name, name, json.dumps({"displayName": name}), size, now, now))
        self.db.executemany("INSERT INTO members (provider, group_id, member_id, kind) VALUES (?, ?, ?, 'user')",
                            ((PROVIDER, group.bytes, uuid.uuid4().bytes) for _ in range(size)))
        self.db.execute("COMMIT")
        return group

    def add_member(self, group, user):
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("INSERT INTO members (provider, group_id, member_id, kind) VALUES (?, ?, ?, 'user')",
                        (PROVIDER, group.bytes, user.bytes))
        self.db.execute("UPDATE groups SET member_count = member_count + 1, version = version + 1, updated_at = ?"
                        " WHERE provider = ? AND id = ?", (time.time_ns(), PROVIDER, group.bytes))
        self.log("group.member.add", str(user), None, {"membersAdded": {"group": str(group), "users": [str(user)]}})
        self.db.execute("COMMIT")

    def create_users(self, count, clients, prefix):
        """`count` users from `clients` threads, each with its own connection. Returns users a second."""
        def work(number):
            floor = self if clients == 1 else Floor(self.path, create=False)
            for index in range(number, count, clients):
                floor.create_user(f"{prefix}-{index}")
            if floor is not self:
                floor.db.close()
        started = time.perf_counter()
        if clients == 1:
            work(0)
        else:
            threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return count / (time.perf_counter() - started)


def user_resource(name):
    """A user as an IdP sends it."""
    email = f"{name}@example.com"
    return {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": email, "externalId": f"00u-{name}",
            "active": True, "displayName": name, "name": {"givenName": name, "familyName": "Example"},
            "emails": [{"value": email, "type": "work", "primary": True}]}
