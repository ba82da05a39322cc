//! The process as its operator sees it: flags and environment, the admin port, the commands, a full disk.

use serde_json::{Value, json};

use crate::support::*;

const ALICE: &str = "user:alice@example.com";

async fn granted(fixture: &Fixture) -> Scim {
    let scim = fixture.scim("okta", TOKEN);
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    fixture.members_become("checkout-api", INVOKER, &[ALICE]).await;
    scim
}

async fn prepared() -> Fixture {
    let mut manifests = base();
    manifests.push(("mapping.yaml", mapping("team", "team-checkout", &["services/checkout-api"], &[INVOKER], "")));
    let fixture = Fixture::prepare(&manifests).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    fixture
}

async fn get(fixture: &Fixture, path: &str) -> (u16, String, String) {
    let answer = fixture.http.get(format!("{}{path}", fixture.admin_url)).send().await.expect("an answer");
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap_or_default().to_owned());
    (answer.status().as_u16(), kind.unwrap_or_default(), answer.text().await.expect("text"))
}

#[tokio::test]
async fn every_flag_can_be_set_in_the_environment() {
    let mut fixture = prepared().await;
    fixture.in_environment = true;
    fixture.more.push(("--external-url", "https://rolecall.example.com".to_owned()));
    fixture.more.push(("--namespace", "rolecall-system".to_owned()));
    fixture.run().await;
    let scim = granted(&fixture).await;
    let (_, listed) = scim.send(reqwest::Method::GET, "/Users", None).await;
    let location = listed["Resources"][0]["meta"]["location"].as_str().unwrap_or_default().to_owned();
    assert!(location.starts_with("https://rolecall.example.com/idp/okta/scim/v2/Users/"), "{location}");
}

#[tokio::test]
async fn locations_and_endpoint_come_from_the_external_url_and_never_from_host() {
    let mut fixture = prepared().await;
    fixture.more.push(("--external-url", "https://rolecall.example.com/base/".to_owned()));
    fixture.run().await;
    let answer = fixture
        .http
        .post(format!("{}/idp/okta/scim/v2/Users", fixture.scim_url))
        .bearer_auth(TOKEN)
        .header("host", "evil.example")
        .header("x-forwarded-host", "evil.example")
        .header("content-type", "application/scim+json")
        .body(json!({"userName": "alice@example.com"}).to_string())
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 201);
    let header = answer.headers()["location"].to_str().expect("text").to_owned();
    let body: Value = answer.json().await.expect("JSON");
    let wanted =
        format!("https://rolecall.example.com/base/idp/okta/scim/v2/Users/{}", body["id"].as_str().expect("an id"));
    assert_eq!((header.as_str(), body["meta"]["location"].as_str()), (wanted.as_str(), Some(wanted.as_str())));
    eventually("the endpoint", async || {
        let status = fixture.status("IdentityProvider", "okta").await;
        let endpoint = status["endpoint"].as_str() == Some("https://rolecall.example.com/base/idp/okta/scim/v2");
        if endpoint { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
}

#[tokio::test]
async fn admin_port_answers_health_metrics_and_status_and_nothing_of_it_names_a_person() {
    let mut fixture = prepared().await;
    fixture.run().await;
    granted(&fixture).await;
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
    assert_eq!(get(&fixture, "/livez").await.0, 200);
    assert_eq!(get(&fixture, "/readyz").await.0, 200);
    let (status, kind, metrics) = get(&fixture, "/metrics").await;
    assert_eq!((status, kind.split(';').next()), (200, Some("application/openmetrics-text")));
    assert!(metrics.ends_with("# EOF\n") && metrics.contains("rolecall_"), "{metrics}");
    assert!(!metrics.contains("alice") && !metrics.contains("example.com"), "a person in the metrics:\n{metrics}");
    let (status, kind, list) = get(&fixture, "/status").await;
    let list: Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!((status, kind.as_str(), list["kind"].as_str()), (200, "application/json", Some("List")));
    let mut kinds: Vec<&str> =
        list["items"].as_array().expect("items").iter().filter_map(|i| i["kind"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["CloudRunTarget", "IdentityProvider", "RoleMapping"]);
    for item in list["items"].as_array().expect("items") {
        assert!(item["metadata"]["name"].is_string() && item["status"]["conditions"].is_array(), "{item:#}");
    }
    // SCIM and status have separate ports.
    let elsewhere = fixture.http.get(format!("{}/status", fixture.scim_url)).send().await.expect("an answer");
    assert_eq!(elsewhere.status(), 404);
    let log = fixture.log();
    let said: Vec<&str> = log.lines().filter(|line| !line.contains("DEBUG")).collect();
    assert!(!said.iter().any(|line| line.contains("alice") || line.contains(TOKEN)), "a person or a token in the log");
}

#[tokio::test]
async fn status_prints_a_table_json_and_yaml_of_the_running_process() {
    let mut fixture = prepared().await;
    fixture.run().await;
    granted(&fixture).await;
    fixture.mapping_status("checkout/team", "Ready", |s| has(s, "Ready", "True", "")).await;
    let admin = fixture.admin_url.clone();
    let (exit, table, err) = Fixture::rolecall(&["status", "--admin", &admin]);
    assert_eq!(exit, 0, "{err}");
    for part in ["rolemapping/team", "cloudruntarget/shop-dev", "identityprovider/okta", "1/1"] {
        assert!(table.contains(part), "{part} is not in:\n{table}");
    }
    assert!(!table.contains('\u{1b}'), "no colours into a pipe");
    let (exit, text, _) = Fixture::rolecall(&["status", "-o", "json", "--admin", &admin]);
    let list: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((exit, list["items"].as_array().map(Vec::len)), (0, Some(3)));
    let (exit, text, _) = Fixture::rolecall(&["status", "rolemapping/checkout/team", "-o", "json", "--admin", &admin]);
    let one: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((exit, &one["kind"], &one["status"]["grants"]["desired"]), (0, &json!("RoleMapping"), &json!(1)));
    let (exit, yaml, _) =
        Fixture::rolecall(&["status", "rolemapping", "checkout/team", "-o", "yaml", "--admin", &admin]);
    assert!(exit == 0 && yaml.contains("kind: RoleMapping\n") && yaml.contains("observedGeneration: 1\n"), "{yaml}");
    assert_eq!(Fixture::rolecall(&["status", "rolemapping/checkout/nobody", "--admin", &admin]).0, 1);
    assert_eq!(Fixture::rolecall(&["status", "nonsense", "--admin", &admin]).0, 2);
    fixture.kill();
    let (exit, _, err) = Fixture::rolecall(&["status", "--admin", &admin]);
    assert!(exit == 3 && err.contains("cannot reach rolecall"), "{exit} {err}");
}

#[tokio::test]
async fn lint_reports_file_line_column_and_field_of_what_run_would_refuse() {
    let fixture = prepared().await;
    let folder = fixture.manifests().display().to_string();
    let (exit, out, err) = Fixture::rolecall(&["lint", &folder]);
    assert_eq!((exit, out.as_str()), (0, ""), "{err}");
    fixture.write("mapping.yaml", &mapping("team", "team-checkout", &["services/checkout-api"], &["roles/owner"], ""));
    fixture.write("broken.yaml", "kind: [\n");
    let (exit, out, _) = Fixture::rolecall(&["lint", &folder]);
    assert_eq!(exit, 1);
    assert!(out.lines().any(|line| line.contains("mapping.yaml:13:15 spec.grants[0].roles[0]: ")), "{out}");
    assert!(out.lines().any(|line| line.contains("broken.yaml:")), "{out}");
    assert_eq!(Fixture::rolecall(&["lint"]).0, 2, "no files");
}

/// Some 56 kB, which is nearly the limit of one user.
fn padding() -> Value {
    (0..7).map(|n| json!({"value": format!("https://photos.example/{n}/{}", "x".repeat(8000))})).collect()
}

#[tokio::test]
async fn database_on_a_full_disk_is_answered_with_503_and_nothing_is_half_written() {
    let mut fixture = prepared().await;
    fixture.file_limit = Some(1500);
    fixture.run().await;
    let scim = granted(&fixture).await;
    let body = |i: usize| {
        json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": format!("user{i}@example.com"),
            "photos": padding()})
    };
    let mut stored = Vec::new();
    let refused = loop {
        let i = stored.len();
        assert!(i < 100, "the disk never fills");
        let (status, answer) = scim.send(reqwest::Method::POST, "/Users", Some(body(i))).await;
        if status != 201 {
            break (status, answer);
        }
        stored.push(answer["id"].as_str().expect("an id").to_owned());
    };
    assert_eq!(refused.0, 503, "{:#}", refused.1);
    assert_eq!(refused.1["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:Error"]));
    let filter = format!("/Users?filter=userName%20eq%20%22user{}@example.com%22", stored.len());
    let (status, found) = scim.send(reqwest::Method::GET, &filter, None).await;
    assert_eq!((status, &found["totalResults"]), (200, &json!(0)), "reads go on, and it is not there");
    assert!(stored.len() > 2, "some fitted");
    // What was answered with 201 is stored, also after a crash.
    fixture.kill();
    fixture.file_limit = Some(100_000);
    fixture.run().await;
    for id in &stored {
        assert_eq!(scim.send(reqwest::Method::GET, &format!("/Users/{id}"), None).await.0, 200);
    }
    let (_, all) = scim.send(reqwest::Method::GET, "/Users?count=0", None).await;
    assert_eq!(all["totalResults"], json!(stored.len() + 1), "{all}");
    assert_eq!(scim.send(reqwest::Method::POST, "/Users", Some(body(stored.len()))).await.0, 201);
    fixture.agree().await;
}

#[tokio::test]
async fn disk_that_has_space_again_is_written_to_without_a_restart() {
    let mut fixture = prepared().await;
    fixture.file_limit = Some(1500);
    fixture.run().await;
    let scim = granted(&fixture).await;
    let group = scim.create_group("team-other", &[]).await;
    let body = |i: usize| {
        json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": format!("user{i}@example.com"),
            "photos": padding()})
    };
    let mut i = 0;
    while scim.send(reqwest::Method::POST, "/Users", Some(body(i))).await.0 == 201 {
        i += 1;
        assert!(i < 100, "the disk never fills");
    }
    fixture.lift_file_limit();
    eventually("written again", async || {
        let (status, answer) = scim.send(reqwest::Method::POST, "/Users", Some(body(i))).await;
        if status == 201 { Ok(()) } else { Err(format!("{status} {answer}")) }
    })
    .await;
    let bob = scim.create_user("bob@example.com").await;
    scim.add_members(&group, &[&bob]).await;
    fixture.write("mapping.yaml", &mapping("team", "team-other", &["services/checkout-api"], &[INVOKER], ""));
    fixture.members_become("checkout-api", INVOKER, &["user:bob@example.com"]).await;
    fixture.agree().await;
}
