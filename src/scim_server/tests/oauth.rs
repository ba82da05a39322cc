//! The token endpoint of OAuth 2.0 clients, and the tokens it issues.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::*;
use crate::scim_server::{Accepted, AcceptedClient, ClientKeys};

const ID: &str = "rolecall-okta";
const SECRET: &str = "client-secret/with+signs%41-0123456789";
const GRANT: &str = "grant_type=client_credentials";

fn client(name: &str, id: &str, secret: &str) -> AcceptedClient {
    AcceptedClient {
        name: name.to_owned(),
        keys: ClientKeys::of(id.as_bytes(), secret.as_bytes()).unwrap(),
        not_after: None,
    }
}

fn accept(server: &Server, clients: Vec<AcceptedClient>) {
    let entra = vec![client("e", "rolecall-entra", "another-client-secret-0123456789abcdef")];
    server.tokens.replace(BTreeMap::from([
        (ProviderName::new("okta").unwrap(), Accepted { clients, ..Accepted::default() }),
        (ProviderName::new("entra").unwrap(), Accepted { clients: entra, ..Accepted::default() }),
    ]));
}

async fn server() -> Server {
    let server = Server::start().await;
    accept(&server, vec![client("a", ID, SECRET)]);
    server
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn post(server: &Server, provider: &str, authorization: Option<&str>, body: &str) -> Reply {
    let url = format!("http://{}/idp/{provider}/oauth2/token", server.address);
    let mut request = server.client.post(url).header("content-type", "application/x-www-form-urlencoded");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    reply(request.body(body.to_owned()).send().await.unwrap()).await
}

async fn reply(response: reqwest::Response) -> Reply {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Reply { status, headers, text: response.text().await.unwrap() }
}

/// Checks the form of an error (RFC 6749 §5.2).
#[track_caller]
fn is_refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, &reply.json()["error"]), (status, &json!(code)), "{}", reply.text);
    assert_eq!((reply.header("cache-control"), reply.header("pragma")), ("no-store", "no-cache"));
    assert_eq!(reply.header("www-authenticate").starts_with("Basic"), status == 401);
    assert!(!reply.text.contains(SECRET));
}

#[track_caller]
fn issued(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.header("content-type"), "application/json;charset=UTF-8");
    assert_eq!((reply.header("cache-control"), reply.header("pragma")), ("no-store", "no-cache"));
    let body = reply.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(3600)));
    body["access_token"].as_str().unwrap().to_owned()
}

async fn users(server: &Server, provider: &str, token: &str) -> u16 {
    server.of(provider, token, "GET", "/Users", None).await.status
}

#[tokio::test]
async fn a_client_authenticates_by_header_or_body_and_gets_a_token_of_an_hour() {
    let server = server().await;
    let in_body = format!("{GRANT}&client_id={}&client_secret={}", encoded(ID), encoded(SECRET));
    for (authorization, body) in [
        (Some(basic(ID, SECRET)), GRANT.to_owned()),
        (Some(basic(&encoded(ID), &encoded(SECRET))), GRANT.to_owned()),
        (Some(basic(ID, SECRET).replacen("Basic", "bAsIc", 1)), format!("{GRANT}&client_id={ID}")),
        (None, in_body.clone()),
        (None, format!("{in_body}&scope=&audience=x&resource=")),
    ] {
        let reply = post(&server, "okta", authorization.as_deref(), &body).await;
        let token = issued(&reply);
        assert_eq!(users(&server, "okta", &token).await, 200, "{body}");
        assert_eq!(users(&server, "entra", &token).await, 401, "of another provider");
        assert_eq!(reply.json().get("scope"), None);
    }
    let reply = post(&server, "okta", None, &format!("{in_body}&scope=a+b")).await;
    assert_eq!(reply.json()["scope"], "scim", "another scope than the one that was asked for is named");
}

#[tokio::test]
async fn the_secret_is_no_bearer_token_and_the_token_ends_after_an_hour() {
    let server = server().await;
    let token = issued(&post(&server, "okta", Some(&basic(ID, SECRET)), GRANT).await);
    assert_eq!(users(&server, "okta", SECRET).await, 401);
    server.clock.advance(Duration::from_secs(3599));
    assert_eq!(users(&server, "okta", &token).await, 200);
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(users(&server, "okta", &token).await, 401);
    assert!(server.found(FindingCode::AccessTokenEnded));
}

#[tokio::test]
async fn a_token_survives_a_restart_and_ends_when_the_secret_changes_or_the_client_is_removed() {
    let server = server().await;
    let token = issued(&post(&server, "okta", Some(&basic(ID, SECRET)), GRANT).await);
    accept(&server, vec![client("z", "other", "yet-another-client-secret-0123456789"), client("a", ID, SECRET)]);
    assert_eq!(users(&server, "okta", &token).await, 200, "another process reads the same Secret");
    accept(&server, vec![client("a", ID, "a-new-client-secret-0123456789abcdef")]);
    assert_eq!(users(&server, "okta", &token).await, 401);
    accept(&server, vec![]);
    assert_eq!(users(&server, "okta", &token).await, 401);
    is_refused(&post(&server, "okta", Some(&basic(ID, SECRET)), GRANT).await, 401, "invalid_client");
}

#[tokio::test]
async fn refusals_have_the_codes_of_the_rfc() {
    let server = server().await;
    let right = basic(ID, SECRET);
    let in_body = format!("client_id={ID}&client_secret={}", encoded(SECRET));
    for (authorization, body, status, code) in [
        (Some(&right), "", 400, "invalid_request"),
        (Some(&right), "grant_type=", 400, "invalid_request"),
        (Some(&right), "grant_type=password", 400, "unsupported_grant_type"),
        (Some(&right), "grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
        (Some(&right), &format!("{GRANT}&{in_body}"), 400, "invalid_request"),
        (Some(&right), &format!("{GRANT}&client_id=other"), 400, "invalid_request"),
        (Some(&right), &format!("{GRANT}&scope=%22"), 400, "invalid_scope"),
        (Some(&right), &format!("{GRANT}&x={}", "a".repeat(9000)), 400, "invalid_request"),
        (None, GRANT, 401, "invalid_client"),
        (None, &format!("{GRANT}&client_id={ID}"), 401, "invalid_client"),
        (None, &format!("{GRANT}&client_id={ID}&client_secret=wrong"), 401, "invalid_client"),
        (Some(&basic(ID, "wrong")), GRANT, 401, "invalid_client"),
        (Some(&basic("other", SECRET)), GRANT, 401, "invalid_client"),
        (Some(&"Bearer x".to_owned()), GRANT, 401, "invalid_client"),
        (Some(&"Basic ???".to_owned()), GRANT, 401, "invalid_client"),
    ] {
        is_refused(&post(&server, "okta", authorization.map(String::as_str), body).await, status, code);
    }
    for provider in ["entra", "nobody", "%FF"] {
        is_refused(&post(&server, provider, Some(&right), GRANT).await, 401, "invalid_client");
    }
    assert!(server.found(FindingCode::ClientNotAccepted));

    let url = format!("http://{}/idp/okta/oauth2/token", server.address);
    let sent = server.client.get(&url).header("authorization", &right).send().await.unwrap();
    assert_eq!(sent.headers()["allow"], "POST");
    is_refused(&reply(sent).await, 405, "invalid_request");
    let json = server.client.post(&url).header("authorization", &right).header("content-type", "application/json");
    is_refused(&reply(json.body("{}").send().await.unwrap()).await, 400, "invalid_request");
    let form = "application/x-www-form-urlencoded";
    let in_url = server.client.post(format!("{url}?{GRANT}&{in_body}")).header("content-type", form);
    is_refused(&reply(in_url.body(GRANT).send().await.unwrap()).await, 400, "invalid_request");
}

#[tokio::test]
async fn failures_are_slowed_down_and_never_keep_the_right_client_from_its_token() {
    let server = server().await;
    let mut slowed = 0;
    let wrong = basic(ID, "wrong");
    for reply in futures::future::join_all((0..200).map(|_| post(&server, "okta", Some(&wrong), GRANT))).await {
        if reply.status == 429 {
            assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
            slowed += 1;
        }
    }
    assert!(slowed > 0);
    issued(&post(&server, "okta", Some(&basic(ID, SECRET)), GRANT).await);
}

#[tokio::test]
async fn a_client_that_has_ended_or_whose_secret_another_provider_has_gets_nothing() {
    let server = server().await;
    let end: Timestamp = "2026-06-01T00:10:00Z".parse().unwrap();
    accept(&server, vec![AcceptedClient { not_after: Some(end), ..client("a", ID, SECRET) }]);
    let reply = post(&server, "okta", Some(&basic(ID, SECRET)), GRANT).await;
    assert_eq!(reply.json()["expires_in"], 600);
    server.clock.advance(Duration::from_mins(10));
    is_refused(&post(&server, "okta", Some(&basic(ID, SECRET)), GRANT).await, 401, "invalid_client");
    assert!(server.found(FindingCode::TokenExpired));
    accept(&server, vec![client("a", ID, "another-client-secret-0123456789abcdef")]);
    assert_eq!(server.tokens.shared().len(), 2);
    for (provider, id) in [("okta", ID), ("entra", "rolecall-entra")] {
        let basic = basic(id, "another-client-secret-0123456789abcdef");
        is_refused(&post(&server, provider, Some(&basic), GRANT).await, 401, "invalid_client");
    }
}

#[tokio::test]
async fn a_suspended_provider_gets_no_token() {
    let server = server().await;
    server.tokens.suspend([ProviderName::new("okta").unwrap()].into());
    let reply = post(&server, "okta", Some(&basic(ID, SECRET)), GRANT).await;
    is_refused(&reply, 503, "temporarily_unavailable");
    assert_eq!(reply.header("retry-after"), "300");
}

#[tokio::test]
async fn the_last_use_and_the_url_of_a_token_are_those_of_its_client() {
    let server = server().await;
    let token = issued(&post(&server, "okta", Some(&basic(ID, SECRET)), GRANT).await);
    assert_eq!(users(&server, "okta", &token).await, 200);
    let okta = ProviderName::new("okta").unwrap();
    assert!(server.traffic.of(&okta).tokens_last_used.contains_key("oauth:a"));
    let url = format!("http://{}/scim/v2/Users", server.address);
    server.client.get(url).bearer_auth(&token).send().await.unwrap();
    assert!(server.found(FindingCode::BaseUrlWrong), "the token tells whose client it is");
}
