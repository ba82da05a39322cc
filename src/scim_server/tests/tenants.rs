//! Whatever one identity provider asks for, it learns and changes nothing of another.
//!
//! Two servers get the same random requests of `okta`. On one of them, `entra` has the same people and groups, and changes them
//! meanwhile; the other one has no `entra`. Both have to answer alike, except for the ids that they gave, and no row of `entra`
//! may change. Requests are drawn from the routes of the router, so that a new route takes part without being listed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex::Regex;
use serde_json::{Value, json};

use super::draws::Draws;
use super::*;
use crate::scim_server::{Accepted, AcceptedClient, ClientKeys};

/// Text that only `entra` stores.
const SECRET: &str = "known-to-entra-only";
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"];
const SEEDS: u64 = 4;
const REQUESTS: usize = 250;
const UNKNOWN: &str = "00000000-0000-4000-8000-0000000000ff";
const CLIENT_SECRET: &str = "client-secret-of-okta-0123456789";
const UUID: &str = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";

/// The paths of a router, as its debug output has them: axum lists them nowhere else.
pub(super) fn paths(router: &axum::Router) -> BTreeSet<String> {
    let quoted = Regex::new("\"(/[^\"]*)\"").unwrap();
    let paths: BTreeSet<String> =
        quoted.captures_iter(&format!("{router:?}")).map(|found| found[1].to_owned()).collect();
    assert!(paths.contains("/Users/{id}") && paths.contains("/Bulk"), "{paths:?}");
    paths
}

/// A server with `okta`, and a directory that looks the same for whoever is stored there.
struct Tenants {
    shared: Server,
    alone: Server,
    /// Ids of `okta` on both servers; the place is the number in a placeholder.
    ids: Vec<(String, String)>,
    /// Ids of `entra`.
    foreign: Vec<String>,
    /// Those that `okta` has sent.
    sent: BTreeSet<String>,
    /// Cursors of `okta` on both servers, and of `entra`.
    cursors: Vec<(String, String)>,
    foreign_cursors: Vec<String>,
    uuid: Regex,
    cut: Regex,
}

/// A request with placeholders for the ids and cursors of `okta`.
#[derive(Debug, Clone)]
struct Drawn {
    /// The provider in the path, and the token in the header.
    provider: &'static str,
    token: &'static str,
    method: &'static str,
    path: String,
    header: Option<(&'static str, &'static str)>,
    body: Option<Value>,
}

impl Tenants {
    async fn start() -> Self {
        let (shared, alone) = (Server::start().await, Server::start().await);
        for server in [&shared, &alone] {
            let keys = ClientKeys::of(b"client-of-okta", CLIENT_SECRET.as_bytes()).unwrap();
            let client = AcceptedClient { name: "c".into(), keys, not_after: None };
            let okta = Accepted { tokens: vec![token("a", OKTA_TOKEN)], clients: vec![client], oidc: None };
            let entra = Accepted { tokens: vec![token("a", ENTRA_TOKEN)], ..Accepted::default() };
            let accepted = [("okta", okta), ("entra", entra)];
            server.tokens.replace(BTreeMap::from(accepted.map(|(name, one)| (ProviderName::new(name).unwrap(), one))));
        }
        let (uuid, cut) = (Regex::new(UUID).unwrap(), Regex::new("[0-9a-f]{1,8}(?:-[0-9a-f]*)*…").unwrap());
        let (ids, foreign) = (Vec::new(), Vec::new());
        let (sent, cursors, foreign_cursors) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut tenants = Self { shared, alone, ids, foreign, sent, cursors, foreign_cursors, uuid, cut };
        for drawn in directory() {
            tenants.both(&drawn, &mut BTreeMap::new()).await.unwrap();
            let reply = tenants.of_entra(&drawn).await;
            assert_eq!(reply.status, 201, "{}", reply.text);
        }
        tenants
    }

    /// Sends a request as `entra`, with its ids and with text that only it stores.
    async fn of_entra(&mut self, drawn: &Drawn) -> Reply {
        let own = Drawn { provider: "entra", token: ENTRA_TOKEN, ..drawn.clone() };
        let id = |id: usize| self.foreign[id % self.foreign.len()].clone();
        let mut filled = filled(&own, id, |_| String::new());
        filled.body = filled.body.map(|body| {
            serde_json::from_str(&body.to_string().replace("\"title\":\"a\"", &format!("\"title\":\"{SECRET}\"")))
                .unwrap()
        });
        let reply = send(&self.shared, &filled).await;
        self.foreign.extend(created(&reply));
        self.foreign_cursors.extend(cursor(&reply));
        reply
    }

    /// Sends a request to both servers, and compares the answers.
    async fn both(&mut self, drawn: &Drawn, statuses: &mut BTreeMap<u16, usize>) -> Result<(), String> {
        let one = filled(drawn, |id| self.ids[id].0.clone(), |cursor| self.cursors[cursor].0.clone());
        let other = filled(drawn, |id| self.ids[id].1.clone(), |cursor| self.cursors[cursor].1.clone());
        let (one, other) = (send(&self.shared, &one).await, send(&self.alone, &other).await);
        *statuses.entry(one.status).or_default() += 1;
        self.learn(&one, &other);
        let (shown, wanted) = (self.shown(&one, |ids| &ids.0), self.shown(&other, |ids| &ids.1));
        if shown != wanted {
            return Err(format!("answered\n{shown}\ninstead of\n{wanted}"));
        }
        // An id of `entra` that `okta` sent may be stored as the reference that it is.
        let sent = format!("{drawn:?}");
        self.sent.extend(self.foreign.iter().filter(|id| sent.contains(*id)).cloned());
        let unknown = self.foreign.iter().filter(|id| !self.sent.contains(*id)).map(String::as_str);
        match unknown.chain([SECRET]).find(|name| one.text.contains(name)) {
            Some(name) => Err(format!("the answer has {name}: {}", one.text)),
            None => Ok(()),
        }
    }

    /// Notes ids and cursors that the servers gave.
    fn learn(&mut self, one: &Reply, other: &Reply) {
        self.ids.extend(created(one).into_iter().zip(created(other)));
        self.cursors.extend(cursor(one).zip(cursor(other)));
    }

    /// An answer as text, with numbers instead of the ids of `okta`.
    fn shown(&self, reply: &Reply, id: impl Fn(&(String, String)) -> &String) -> String {
        let numbers: BTreeMap<&str, usize> =
            self.ids.iter().enumerate().map(|(number, ids)| (id(ids).as_str(), number)).collect();
        let numbered = |text: &str| {
            // A path that an error quotes may end within an id.
            let text = self.cut.replace_all(text, "…");
            let replaced = self.uuid.replace_all(&text, |found: &regex::Captures<'_>| {
                numbers.get(&found[0]).map_or_else(|| found[0].to_owned(), |number| format!("#{number}"))
            });
            replaced.into_owned()
        };
        let mut text = format!("{}\n", reply.status);
        for name in ["location", "etag", "allow", "retry-after", "www-authenticate", "content-type"] {
            writeln!(text, "{name}: {}", numbered(reply.header(name))).unwrap();
        }
        match serde_json::from_str(&numbered(&reply.text)) {
            Ok(mut body) => {
                sort(&mut body);
                text.push_str(&serde_json::to_string_pretty(&body).unwrap());
            }
            Err(_) => text.push_str(&reply.text),
        }
        text
    }

    /// One random request of `okta`.
    fn draw(&self, draws: &Draws, routes: &[String]) -> Drawn {
        let of_resources =
            |route: &&String| ["/Users", "/Groups", "/Bulk", "/.search"].iter().any(|at| route.starts_with(at));
        let most: Vec<String> = routes.iter().filter(of_resources).cloned().collect();
        let route = draws.pick(if draws.one_in(5) { routes } else { &most }).clone();
        let likely: &[&str] = match (route.contains('{'), route.ends_with("search") || route == "/Bulk") {
            (_, true) => &["POST"],
            (true, false) => &["GET", "GET", "PUT", "PUT", "PATCH", "PATCH", "PATCH", "DELETE"],
            (false, false) => &["GET", "POST"],
        };
        let holes = Regex::new(r"\{[^}]*\}").unwrap();
        let mut path = holes.replace_all(&route, |_: &regex::Captures<'_>| self.segment(draws)).into_owned();
        let method = if draws.one_in(6) { draws.pick(&METHODS) } else { draws.pick(likely) };
        if draws.one_in(2) {
            path = format!("{path}?{}", self.query(draws));
        }
        let body = matches!(*method, "POST" | "PUT" | "PATCH").then(|| self.body(draws, &route, method));
        let headers =
            [("if-match", "W/\"1\""), ("if-match", "*"), ("if-none-match", "W/\"1\""), ("if-none-match", "*")];
        let header = if draws.one_in(4) { Some(*draws.pick(&headers)) } else { None };
        let provider = if draws.one_in(10) { draws.pick(&["entra", "%65ntra", "nobody"]) } else { "okta" };
        Drawn { provider, token: OKTA_TOKEN, method, path, header, body }
    }

    /// An id of `okta` or `entra`, or of nobody.
    fn id(&self, draws: &Draws) -> String {
        match draws.below(10) {
            0..=3 => format!("{{{{id:{}}}}}", draws.below(self.ids.len())),
            4..=7 => draws.pick(&self.foreign).clone(),
            8 => format!("x{}", draws.below(6)),
            _ => UNKNOWN.to_owned(),
        }
    }

    fn segment(&self, draws: &Draws) -> String {
        match draws.below(12) {
            0 => format!("..%2F..%2F..%2Fentra%2Fscim%2Fv2%2FUsers%2F{}", draws.pick(&self.foreign)),
            1 => self.id(draws).to_uppercase().replace("{{ID", "{{id"),
            _ => self.id(draws),
        }
    }

    fn query(&self, draws: &Draws) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut parts = Vec::new();
        for _ in 0..=draws.below(2) {
            let id = self.id(draws);
            parts.push(match draws.below(12) {
                0..=5 => {
                    let filter = filter(draws).replace("%ID", &id);
                    // The braces of a placeholder stay.
                    format!("filter={}", encoded(&filter).replace("%7B%7Bid%3A", "{{id:").replace("%7D%7D", "}}"))
                }
                6 => format!(
                    "sortBy={}&sortOrder={}",
                    draws.pick(&["userName", "title"]),
                    draws.pick(&["ascending", "descending"])
                ),
                7 => format!("count={}&startIndex={}", draws.below(4), draws.below(8)),
                8 => format!(
                    "attributes={}",
                    draws.pick(&[
                        "groups",
                        "members.display,members",
                        "userName,urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager",
                        "title",
                        "id"
                    ])
                ),
                9 => format!("excludedAttributes={}", draws.pick(&["members", "title", "groups"])),
                _ => format!("cursor={}&count=2", self.cursor(draws)),
            });
        }
        parts.join("&")
    }

    fn cursor(&self, draws: &Draws) -> String {
        match draws.below(3) {
            0 if !self.cursors.is_empty() => format!("{{{{cursor:{}}}}}", draws.below(self.cursors.len())),
            1 if !self.foreign_cursors.is_empty() => draws.pick(&self.foreign_cursors).clone(),
            _ => String::new(),
        }
    }

    fn body(&self, draws: &Draws, route: &str, method: &str) -> Value {
        match (route, method) {
            (route, _) if route.ends_with(".search") => self.search(draws),
            ("/Bulk", _) => {
                json!({"Operations": (0..=draws.below(3)).map(|_| self.operation(draws)).collect::<Vec<_>>()})
            }
            (route, "PATCH") => self.patch(draws, route.starts_with("/Groups")),
            (route, _) if route.starts_with("/Groups") => self.group(draws),
            _ => self.user(draws),
        }
    }

    fn search(&self, draws: &Draws) -> Value {
        let mut search = json!({"filter": filter(draws).replace("%ID", &self.id(draws))});
        if draws.one_in(2) {
            search["cursor"] = self.cursor(draws).into();
            search["count"] = 2.into();
        }
        search
    }

    fn user(&self, draws: &Draws) -> Value {
        let number = draws.below(8);
        json!({
            "userName": format!("u{number}"), "externalId": format!("x{}", draws.below(6)), "title": draws.pick(&["a", "b"]),
            "id": self.id(draws), "meta": {"location": "https://rolecall.example.com/idp/entra/scim/v2/Users/1"},
            "groups": [{"value": self.id(draws)}], "active": !draws.one_in(5),
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"manager": self.member(draws)},
        })
    }

    fn group(&self, draws: &Draws) -> Value {
        let members: Vec<Value> = (0..draws.below(4)).map(|_| self.member(draws)).collect();
        json!({
            "displayName": format!("g{}", draws.below(6)), "externalId": format!("x{}", draws.below(6)),
            "id": self.id(draws), "members": members,
        })
    }

    fn member(&self, draws: &Draws) -> Value {
        let mut member = json!({"value": self.id(draws)});
        if draws.one_in(3) {
            let kind = draws.pick(&["Users", "Groups"]);
            member["$ref"] = format!("https://rolecall.example.com/idp/entra/scim/v2/{kind}/{}", self.id(draws)).into();
        }
        if draws.one_in(4) {
            member["type"] = json!(draws.pick(&["User", "Group"]));
        }
        member
    }

    fn patch(&self, draws: &Draws, group: bool) -> Value {
        let of_group = |draws: &Draws| match draws.below(7) {
            0 => json!({"op": "replace", "path": "members", "value": [self.member(draws)]}),
            1 => json!({"op": "remove", "path": format!("members[value eq \"{}\"]", self.id(draws))}),
            2 => json!({"op": "remove", "path": "members", "value": [self.member(draws)]}),
            3 => json!({"op": "replace", "path": "displayName", "value": format!("g{}", draws.below(6))}),
            4 => {
                json!({"op": "replace", "value": {"externalId": format!("x{}", draws.below(6)), "id": self.id(draws)}})
            }
            _ => json!({"op": "add", "path": "members", "value": [self.member(draws), self.member(draws)]}),
        };
        let of_user = |draws: &Draws| match draws.below(6) {
            0 => json!({"op": "replace", "path": "active", "value": draws.one_in(2)}),
            1 => json!({"op": "replace", "path": "userName", "value": format!("u{}", draws.below(8))}),
            2 => json!({"op": "replace", "path": "externalId", "value": format!("x{}", draws.below(6))}),
            3 => {
                json!({"op": "add", "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager", "value": self.member(draws)})
            }
            4 => json!({"op": "replace", "value": {"id": self.id(draws)}}),
            _ => json!({"op": "replace", "value": {"title": draws.pick(&["a", "b"])}}),
        };
        let operations: Vec<Value> =
            (0..=draws.below(2)).map(|_| if group { of_group(draws) } else { of_user(draws) }).collect();
        json!({"Operations": operations})
    }

    fn operation(&self, draws: &Draws) -> Value {
        let group = draws.one_in(2);
        let endpoint = if group { "/Groups" } else { "/Users" };
        let base = draws.pick(&[
            "",
            "",
            "",
            "/idp/entra/scim/v2",
            "https://rolecall.example.com/idp/entra/scim/v2",
            "/../../entra/scim/v2",
        ]);
        let one = format!("{base}{endpoint}/{}", self.id(draws));
        let bulk_id = draws.pick(&["a", "b"]);
        let mut data = if group { self.group(draws) } else { self.user(draws) };
        if group && draws.one_in(2) {
            data["members"] =
                json!([{"value": format!("bulkId:{}", draws.pick(&["a", "b", "c"]))}, self.member(draws)]);
        }
        match draws.below(5) {
            0 | 1 => json!({"method": "POST", "path": endpoint, "bulkId": bulk_id, "data": data}),
            2 => json!({"method": "PUT", "path": one, "data": data}),
            3 => json!({"method": "PATCH", "path": one, "version": "W/\"1\"", "data": self.patch(draws, group)}),
            _ => json!({"method": "DELETE", "path": one}),
        }
    }
}

/// The request with ids and cursors in place of `{{id:N}}` and `{{cursor:N}}`.
fn filled(drawn: &Drawn, id: impl Fn(usize) -> String, cursor: impl Fn(usize) -> String) -> Drawn {
    let fill = |text: &str| {
        let pattern = Regex::new(r"\{\{(id|cursor):(\d+)\}\}").unwrap();
        let filled = pattern.replace_all(text, |found: &regex::Captures<'_>| {
            let number = found[2].parse().unwrap();
            if &found[1] == "id" { id(number) } else { cursor(number) }
        });
        filled.into_owned()
    };
    let body = drawn.body.as_ref().map(|body| serde_json::from_str(&fill(&body.to_string())).unwrap());
    Drawn { path: fill(&drawn.path), body, ..drawn.clone() }
}

fn filter(draws: &Draws) -> String {
    let filters = [
        "userName eq \"u1\"",
        "userName sw \"u\"",
        "externalId eq \"x1\"",
        "displayName eq \"g0\"",
        "id eq \"%ID\"",
        "members eq \"%ID\"",
        "members[value eq \"%ID\"]",
        "members.value eq \"%ID\" and displayName pr",
        "groups.value eq \"%ID\"",
        "groups[value eq \"%ID\"]",
        "manager eq \"%ID\"",
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.value eq \"%ID\"",
        "title co \"known\"",
        "title pr or not (userName eq \"u2\")",
        "emails[type eq \"work\" and value co \"@\"]",
        "meta.lastModified ge \"2026-06-01T00:00:00Z\"",
        "meta.location co \"entra\"",
        "meta.version eq \"W/\\\"1\\\"\"",
    ];
    let one = draws.pick(&filters);
    if draws.one_in(4) { format!("{one} or {}", draws.pick(&filters)) } else { (*one).to_owned() }
}

/// The ids that an answer gives to created resources.
fn created(reply: &Reply) -> Vec<String> {
    let Ok(body) = serde_json::from_str::<Value>(&reply.text) else { return Vec::new() };
    let one = (reply.status == 201).then(|| body["id"].clone());
    let bulk = body["Operations"].as_array().into_iter().flatten().filter(|done| done["status"] == "201");
    let texts = one.into_iter().chain(bulk.map(|done| done["location"].clone()));
    texts.filter_map(|text| Some(text.as_str()?.rsplit('/').next()?.to_owned())).collect()
}

fn cursor(reply: &Reply) -> Option<String> {
    serde_json::from_str::<Value>(&reply.text).ok()?["nextCursor"].as_str().map(str::to_owned)
}

/// Requests that create the same directory in each tenant.
fn directory() -> Vec<Drawn> {
    let post = |path: &str, body: Value| Drawn {
        provider: "okta",
        token: OKTA_TOKEN,
        method: "POST",
        path: path.to_owned(),
        header: None,
        body: Some(body),
    };
    let user = |number: usize| {
        json!({
            "userName": format!("u{number}"), "externalId": format!("x{number}"), "title": "a",
            "emails": [{"type": "work", "value": format!("u{number}@example.com")}],
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"manager": {"value": "{{id:0}}"}},
        })
    };
    let group = |number: usize, members: Value| json!({"displayName": format!("g{number}"), "externalId": format!("x{}", number + 3), "members": members});
    let mut all = vec![post("/Users", json!({"userName": "u0", "externalId": "x0"}))];
    all.extend((1..4).map(|number| post("/Users", user(number))));
    all.push(post("/Groups", group(0, json!([{"value": "{{id:0}}"}, {"value": "{{id:1}}"}]))));
    all.push(post(
        "/Groups",
        group(1, json!([{"value": "{{id:4}}", "type": "Group"}, {"value": "x2"}, {"value": "waits"}])),
    ));
    all
}

/// Lists without a meaningful order, sorted.
fn sort(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                sort(value);
                match value {
                    Value::Array(list) if ["members", "groups"].contains(&name.as_str()) => {
                        list.sort_by_key(ToString::to_string);
                    }
                    Value::String(text) if name == "nextCursor" => *text = "a cursor".into(),
                    _ => {}
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(sort),
        _ => {}
    }
}

async fn send(server: &Server, drawn: &Drawn) -> Reply {
    let authorization = format!("Bearer {}", drawn.token);
    let mut headers = vec![("authorization", Some(authorization.as_str())), ("content-type", Some("application/json"))];
    headers.extend(drawn.header.map(|(name, value)| (name, Some(value))));
    let body = drawn.body.as_ref().map(|body| body.to_string().into_bytes());
    server.send(drawn.provider, drawn.method, &drawn.path, &headers, body).await
}

/// All rows of a provider, by table, and all rows of tables that belong to no provider.
fn rows(server: &Server, provider: &str) -> BTreeMap<String, Vec<String>> {
    let db = rusqlite::Connection::open(server.folder.path().join("rolecall.db")).unwrap();
    let texts = |sql: &str| -> Vec<String> {
        let mut statement = db.prepare(sql).unwrap();
        let columns = statement.column_count();
        let cell = |row: &rusqlite::Row<'_>, column| match row.get_ref(column).unwrap() {
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        };
        let rows = statement
            .query_map([], |row| Ok((0..columns).map(|column| cell(row, column)).collect::<Vec<_>>().join(" ")));
        let mut rows: Vec<String> = rows.unwrap().map(Result::unwrap).collect();
        rows.sort();
        rows
    };
    let tables = texts("SELECT name FROM sqlite_master WHERE type = 'table'");
    let owned = texts(
        "SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'provider'",
    );
    assert!(owned.len() > 5, "{owned:?}");
    let of =
        |table: &String| if owned.contains(table) { format!("WHERE provider = '{provider}'") } else { String::new() };
    tables.into_iter().map(|table| (table.clone(), texts(&format!("SELECT * FROM {table} {}", of(&table))))).collect()
}

async fn run(seed: u64) -> BTreeMap<u16, usize> {
    let random = Draws::new(seed);
    let mut tenants = Tenants::start().await;
    let routes: Vec<String> = paths(&crate::scim_server::routes(&ResourceTypes::default())).into_iter().collect();
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for number in 0..REQUESTS {
        let drawn = tenants.draw(&random, &routes);
        for server in [&tenants.shared, &tenants.alone] {
            server.clock.advance(Duration::from_millis(1500));
        }
        if random.one_in(4) {
            let reply = tenants.of_entra(&drawn).await;
            *statuses.entry(reply.status).or_default() += 1;
            continue;
        }
        let entra = ProviderName::new("entra").unwrap();
        let before = (rows(&tenants.shared, "entra"), tenants.shared.traffic.of(&entra));
        let same = tenants.both(&drawn, &mut statuses).await;
        let after = (rows(&tenants.shared, "entra"), tenants.shared.traffic.of(&entra));
        let shown = || format!("seed {seed}, request {number}: {drawn:#?}");
        same.unwrap_or_else(|problem| panic!("{}\n{problem}", shown()));
        // Where the positions of all tenants continue.
        for (table, rows) in after.0.iter().filter(|(table, _)| *table != "sqlite_sequence") {
            // One table has the names of all, and one the audit trail.
            let is_own = |row: &&String| {
                row.contains(" idp:okta/") || tenants.ids.iter().any(|(id, _)| row.contains(id.as_str()))
            };
            let rows: Vec<&String> = rows.iter().filter(|row| !is_own(row)).collect();
            let before: Vec<&String> = before.0[table].iter().filter(|row| !is_own(row)).collect();
            assert_eq!(before, rows, "{} changed rows of another tenant in {table}", shown());
        }
        if drawn.provider == "okta" {
            assert_eq!(before.1, after.1, "{} changed the traffic of another tenant", shown());
        }
    }
    println!("seed {seed}: {statuses:?}, {} and {} ids", tenants.ids.len(), tenants.foreign.len());
    statuses
}

#[tokio::test]
async fn no_request_learns_or_changes_anything_of_another_tenant() {
    let mut all: BTreeMap<u16, usize> = BTreeMap::new();
    for seed in 1..=SEEDS {
        for (status, count) in run(seed).await {
            *all.entry(status).or_default() += count;
        }
    }
    // The requests have an effect, or the test would show little.
    for (status, least) in [(200, 200), (201, 20), (204, 1), (400, 10), (404, 50), (409, 5)] {
        assert!(all.get(&status).is_some_and(|count| *count >= least), "{status}: {all:?}");
    }
}

#[tokio::test]
async fn credentials_of_one_tenant_are_accepted_at_no_path_of_another() {
    let tenants = Tenants::start().await;
    let server = &tenants.shared;
    let grant = "grant_type=client_credentials";
    let post = async |provider: &str, slash: &str| {
        let url = format!("http://{}/idp/{provider}/oauth2/token{slash}", server.address);
        let request = server.client.post(url).basic_auth("client-of-okta", Some(CLIENT_SECRET)).body(grant);
        let response = request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (status, issued) = post("okta", "").await;
    assert_eq!(status, 200, "{issued}");
    for slash in ["", "/"] {
        assert_eq!(post("entra", slash).await.0, 401);
    }
    let issued = issued["access_token"].as_str().unwrap();
    assert_eq!(server.of("okta", issued, "GET", "/Users", None).await.status, 200);
    let before = rows(server, "entra");
    for path in paths(&crate::scim_server::routes(&ResourceTypes::default())) {
        for (method, token) in METHODS.iter().flat_map(|method| [(method, issued), (method, OKTA_TOKEN)]) {
            let reply = server.of("entra", token, method, &path.replace(['{', '}', '*'], ""), Some(json!({}))).await;
            assert_eq!(reply.status, 401, "{method} {path}");
        }
    }
    assert_eq!(before, rows(server, "entra"));
}
