//! Answers and metric labels of every method on every path. The table is `tests/fixtures/scim/routes.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use crate::model::ProviderName;
use crate::scim::ResourceTypes;
use serde_json::Value;

use super::{OKTA_TOKEN, Reply, Server};

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"];

/// Paths below `/idp/okta/scim/v2`. `{Users}` and `{Groups}` are replaced by existing ids.
const PATHS: [&str; 58] = [
    "",
    "/",
    "//",
    "/Users",
    "/Users/",
    "//Users",
    "//Users//",
    "/%55sers",
    "/users",
    "/Usersx",
    "/Users?count=many",
    "/Users?filter=title%20pr",
    "/Users/{Users}",
    "/Users/{Users}/",
    "/Users//{Users}",
    "/Users/{Users}/x",
    "/Users/{Users}?count=many",
    "/Users/nobody",
    "/Users/nobody?count=many",
    "/Users/%00%2F%20x",
    "/Users/a%FFb",
    "/Users/00000000-0000-4000-8000-0000000000ff",
    "/Users/.search",
    "/Users/.search/",
    "/Users/%2Esearch",
    "/Users/.search/x",
    "/Groups",
    "/Groups/",
    "/Groups?count=many",
    "/Groups/{Groups}",
    "/Groups/{Groups}/",
    "/Groups/{Groups}/x",
    "/Groups/{Groups}?count=many",
    "/Groups/{Users}",
    "/Groups/nobody",
    "/Groups/.search",
    "/Groupsx",
    "/.search",
    "/.search/x",
    "/Bulk",
    "/Bulk/x",
    "/Me",
    "/Me/x/y",
    "/ServiceProviderConfig",
    "/ServiceProviderConfig/",
    "/ServiceProviderConfig/x",
    "/ServiceProviderConfig?filter=a",
    "/ResourceTypes",
    "/ResourceTypes/user",
    "/ResourceTypes/x",
    "/ResourceTypes/x/y",
    "/ResourceTypes?count=many",
    "/ResourceTypes/x?filter=a",
    "/Schemas",
    "/Schemas/URN%3Aietf:params:scim:schemas:core:2.0:Group",
    "/Schemas/x",
    "/Schemas/x/y",
    "/other/Users",
];

#[test]
fn every_route_is_in_the_table() {
    for route in super::tenants::paths(&crate::scim_server::routes(&ResourceTypes::default())) {
        let like = |path: &str| {
            let (path, route) = (path.split('?').next().unwrap().split('/'), route.split('/'));
            let is_any = |part: &str| part.starts_with("{*");
            path.clone().count() >= route.clone().count()
                && path.zip(route.clone()).all(|(given, part)| given == part || part.starts_with('{'))
                && (route.clone().any(is_any) || route.count() > 1)
        };
        assert!(PATHS.iter().any(|path| like(path)), "{route} is in no row");
    }
}

/// Number of requests by operation.
fn counted(server: &Server) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in server.metrics.exposition().unwrap().lines().filter(|line| line.contains("scim_requests_total{")) {
        let operation = line.split_once("operation=\"").unwrap().1.split('"').next().unwrap();
        *counts.entry(operation.to_owned()).or_default() += line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    }
    counts
}

/// The operation whose count increased.
fn operation(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> String {
    let grown = after.iter().filter(|(name, count)| before.get(*name).copied().unwrap_or_default() < **count);
    grown.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("+")
}

/// The row of an answer.
fn described(reply: &Reply, hidden: &[String]) -> String {
    let mut text = reply.status.to_string();
    for name in ["allow", "www-authenticate", "content-type", "retry-after", "location", "etag"] {
        match reply.header(name) {
            "" => {}
            value => write!(text, " {name}={value}").unwrap(),
        }
    }
    if reply.text.is_empty() {
        text.push_str(if reply.header("content-length").is_empty() { " unknown length" } else { " no body" });
    } else if let Ok(body) = serde_json::from_str::<Value>(&reply.text) {
        if let Some(scim_type) = body["scimType"].as_str() {
            write!(text, " {scim_type}").unwrap();
        }
        match body["detail"].as_str() {
            Some(detail) => write!(text, " {detail:?}").unwrap(),
            None => text.push_str(" JSON"),
        }
    }
    for id in hidden {
        text = text.replace(id, "ID");
    }
    text
}

async fn send(server: &Server, method: &str, path: &str, body: &'static str) -> Reply {
    let authorization = format!("Bearer {OKTA_TOKEN}");
    let headers = [("authorization", Some(authorization.as_str())), ("content-type", Some("application/json"))];
    server.send("okta", method, path, &headers, Some(body.into())).await
}

/// The id in the location of a created resource, which the table does not contain.
fn created(reply: &Reply) -> Option<String> {
    reply.header("location").rsplit('/').next().filter(|id| !id.is_empty()).map(str::to_owned)
}

#[tokio::test]
async fn every_method_on_every_path_is_answered_as_in_the_table() {
    let server = Server::start().await;
    let mut table = String::new();
    let mut before = counted(&server);
    let mut rows = 0_u64;
    for path in PATHS {
        for method in METHODS {
            rows += 1;
            // A row may delete them.
            let (user, group) =
                (server.user(&format!("user {rows}")).await, server.group(&format!("{rows}"), &[]).await);
            let filled = path.replace("{Users}", &user).replace("{Groups}", &group);
            before.clone_from(&counted(&server));
            let reply = send(&server, method, &filled, "{}").await;
            let counted_as = operation(&before, &counted(&server));
            let mut hidden = vec![user.clone(), group.clone()];
            hidden.extend(created(&reply));
            writeln!(table, "{method} {path}: {} ({counted_as})", described(&reply, &hidden)).unwrap();
        }
    }
    let seen = server.traffic.of(&ProviderName::new("okta").unwrap());
    assert_eq!(seen.requests, rows * 3, "each is counted once");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/scim/routes.txt");
    if std::env::vars().any(|(key, value)| key == "UPDATE_GOLDEN" && value == "1") {
        std::fs::write(&file, &table).unwrap();
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_default();
    for (row, known) in table.lines().zip(stored.lines()) {
        assert_eq!(row, known, "tests/fixtures/scim/routes.txt");
    }
    assert_eq!(table.lines().count(), stored.lines().count(), "rows");
}

#[tokio::test]
async fn without_a_token_every_path_of_every_provider_is_answered_alike() {
    let server = Server::start().await;
    let paths: BTreeSet<&str> = PATHS.into_iter().collect();
    for (provider, path) in
        paths.iter().map(|path| ("okta", *path)).chain([("nobody", "/Users"), ("%FF", "/Users"), ("", "/Users")])
    {
        for method in METHODS {
            let headers = [("content-type", Some("text/plain")), ("x-request-id", Some("mine"))];
            let reply = server.send(provider, method, path, &headers, Some(b"{".to_vec())).await;
            let start = "401 www-authenticate=Bearer content-type=application/scim+json";
            let wanted = match method {
                "HEAD" => format!("{start} no body"),
                _ => format!("{start} \"the bearer token is missing or not accepted here\""),
            };
            assert_eq!(described(&reply, &[]), wanted, "{method} {provider} {path}");
            assert_eq!(reply.header("x-request-id"), "mine", "{method} {provider} {path}");
        }
    }
    assert_eq!(counted(&server).into_keys().collect::<Vec<_>>(), ["unauthorized"]);
    assert_eq!(server.traffic.unauthorized(), ((paths.len() + 3) * METHODS.len()) as u64);
}

#[tokio::test]
async fn the_provider_in_the_path_may_be_percent_encoded_and_nothing_is_served_outside() {
    let server = Server::start().await;
    let authorization = format!("Bearer {OKTA_TOKEN}");
    let headers = [("authorization", Some(authorization.as_str()))];
    assert_eq!(server.send("%6Fkt%61", "GET", "/Users", &headers, None).await.status, 200);
    for path in ["/", "/idp", "/idp/", "/idp/okta", "/idp/okta/scim", "/idp/okta/scim/v2x", "/Users"] {
        for method in METHODS {
            let url = format!("http://{}{path}", server.address);
            let request = server.client.request(method.parse().unwrap(), url).bearer_auth(OKTA_TOKEN);
            let response = request.header("x-request-id", "mine").send().await.unwrap();
            assert_eq!(response.status(), 404, "{method} {path}");
            assert_eq!(response.headers()["content-type"], "application/scim+json", "{method} {path}");
            assert_eq!(response.headers().get("x-request-id"), None, "{method} {path}");
            let text = response.text().await.unwrap();
            let has_text = text.contains("nothing is served here; the SCIM base URL is `/idp/NAME/scim/v2`");
            assert_eq!(has_text, method != "HEAD", "{method} {path}: {text}");
        }
    }
    let counts = counted(&server);
    assert_eq!(counts, BTreeMap::from([("users.list".to_owned(), 1)]), "what is outside is not counted");
}

#[tokio::test]
async fn query_body_and_id_are_checked_in_a_fixed_order() {
    let server = Server::start().await;
    let user = server.user("alice@example.com").await;
    let one = format!("/Users/{user}");
    for (method, path, body, status, scim_type) in [
        ("POST", "/Users?count=many".to_owned(), "{", 400, Some("invalidSyntax")),
        ("POST", "/Users?count=many".to_owned(), "{}", 400, Some("invalidValue")),
        ("PUT", format!("{one}?count=many"), "{", 400, Some("invalidValue")),
        ("PATCH", format!("{one}?count=many"), "{", 400, Some("invalidValue")),
        ("PUT", "/Users/nobody".to_owned(), "{", 400, Some("invalidSyntax")),
        ("PATCH", "/Groups/nobody".to_owned(), "{", 400, Some("invalidSyntax")),
        ("PATCH", "/Groups/nobody".to_owned(), "{\"Operations\":7}", 404, None),
        ("PUT", "/Users/nobody".to_owned(), "{}", 404, None),
        ("POST", "/Users/.search?count=many".to_owned(), "{}", 200, None),
        ("POST", "/Users/.search".to_owned(), "{", 400, Some("invalidSyntax")),
        ("POST", one, "{", 405, None),
        ("POST", "/Schemas?count=many".to_owned(), "{", 405, None),
    ] {
        let reply = send(&server, method, &path, body).await;
        assert_eq!(reply.status, status, "{method} {path} {body}: {}", reply.text);
        let body: Value = serde_json::from_str(&reply.text).unwrap();
        assert_eq!(body["scimType"].as_str(), scim_type, "{method} {path}: {}", reply.text);
    }
}

#[tokio::test]
async fn suspended_and_rate_limited_providers_are_refused_on_every_path_before_routing() {
    let server = Server::start().await;
    let okta = ProviderName::new("okta").unwrap();
    server.tokens.suspend(BTreeSet::from([okta.clone()]));
    for path in ["/Users", "/Users/nobody?count=many", "/other", "/Bulk", "/Schemas"] {
        for method in METHODS {
            let reply = send(&server, method, path, "{").await;
            assert_eq!((reply.status, reply.header("retry-after")), (503, "300"), "{method} {path}");
            assert_eq!(reply.headers.get("allow"), None, "{method} {path}");
            assert_eq!(reply.header("content-type"), "application/scim+json");
            assert!(!reply.header("x-request-id").is_empty());
        }
    }
    server.tokens.suspend(BTreeSet::new());
    server.tokens.set_rates(BTreeMap::from([(okta, 1.try_into().unwrap())]));
    assert_eq!(send(&server, "GET", "/Schemas", "").await.status, 200);
    for (method, path) in [("PURGE", "/Users"), ("GET", "/other"), ("POST", "/Bulk"), ("POST", "/Users?count=many")] {
        let reply = send(&server, method, path, "{").await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, "1"), "{method} {path}");
    }
}

#[tokio::test]
async fn answers_have_the_media_type_that_is_accepted_and_the_request_id_of_the_client() {
    let server = Server::start().await;
    for (path, authorization) in [("/Users", OKTA_TOKEN), ("/other", OKTA_TOKEN), ("/Users", "wrong")] {
        let authorization = format!("Bearer {authorization}");
        for (accept, wanted) in [
            (Some("application/json"), "application/json"),
            (Some("text/html, Application/JSON"), "application/json"),
            (Some("application/json, */*"), "application/scim+json"),
            (Some("text/html"), "application/scim+json"),
            (None, "application/scim+json"),
        ] {
            let headers = [("authorization", Some(authorization.as_str())), ("accept", accept)];
            let reply = server.send("okta", "GET", path, &headers, None).await;
            // The client of the test sends `*/*` by default.
            assert_eq!(reply.header("content-type"), wanted, "{path} {accept:?}");
        }
        for (given, kept) in [("a-1_2.3:/+=", true), ("with space", false), (&"x".repeat(129), false)] {
            let headers = [("authorization", Some(authorization.as_str())), ("x-request-id", Some(given))];
            let reply = server.send("okta", "GET", path, &headers, None).await;
            assert_eq!(reply.header("x-request-id") == given, kept, "{given}");
            assert!(!reply.header("x-request-id").is_empty());
        }
    }
    let outside = server.client.get(format!("http://{}/", server.address)).header("accept", "application/json");
    assert_eq!(outside.send().await.unwrap().headers()["content-type"], "application/json");
}

#[tokio::test]
async fn head_is_get_without_the_body_and_with_its_length() {
    let server = Server::start().await;
    let user = server.user("alice@example.com").await;
    for path in ["/Users", "/Schemas", "/other", "/Users/nobody", &format!("/Users/{user}")] {
        let (get, head) = (server.okta("GET", path, None).await, server.okta("HEAD", path, None).await);
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.header("content-length"), get.text.len().to_string(), "{path}");
        assert_eq!(head.header("etag"), get.header("etag"), "{path}");
    }
}
