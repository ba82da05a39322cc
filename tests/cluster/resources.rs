//! The custom resources in the API server. No operator is running.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::database::Database;
use crate::support::*;
use crate::table::{MAPPING, PROVIDER, TARGET, replaced, rows};

const KINDS: [&str; 3] = ["IdentityProvider", "CloudRunTarget", "RoleMapping"];

/// The shared control plane, with a namespace for this test.
async fn cluster(namespace: &str) -> Arc<ControlPlane> {
    let cluster = ControlPlane::shared().await;
    cluster.admin.namespace(namespace, &json!({})).await;
    cluster
}

/// The CRD of a kind.
async fn definition(cluster: &ControlPlane, kind: &str) -> Value {
    cluster.admin.find("CustomResourceDefinition", &format!("{}s.rolecall.dev", kind.to_lowercase())).await
}

fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

#[tokio::test]
async fn the_definitions_are_accepted_and_served() {
    let cluster = ControlPlane::shared().await;
    for kind in KINDS {
        let crd = definition(&cluster, kind).await;
        for condition in ["NamesAccepted", "Established"] {
            assert!(has(&crd["status"], condition, "True", ""), "{kind}: {}", crd["status"]);
        }
        assert_eq!(condition(&crd["status"], "NonStructuralSchema"), Value::Null, "{kind}");
        assert_eq!(crd["status"]["storedVersions"], json!(["v1alpha1"]));
    }
}

/// The API server's answer to a manifest.
async fn offered(cluster: &ControlPlane, text: &str) -> Result<Value, Refused> {
    let (kind, namespace) = match () {
        () if text.contains("kind: IdentityProvider") => ("IdentityProvider", None),
        () if text.contains("kind: CloudRunTarget") => ("CloudRunTarget", None),
        () => ("RoleMapping", Some("checkout")),
    };
    let path = format!("{}?dryRun=All&fieldValidation=Strict", collection(kind, namespace));
    cluster.admin.call(Method::POST, &path, "application/yaml", text.to_owned()).await
}

/// Values that folder mode refuses and the API server accepts: there the request determines the namespace, and a null
/// is not a value.
const TAKEN_BY_THE_SERVER: [&str; 3] = ["name: okta\n  namespace: x\n", "", "staleAfter: null"];

/// The findings of `rolecall lint` on a manifest.
fn lint(text: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("manifest.yaml");
    std::fs::write(&file, text).expect("a manifest");
    let output = Command::new(env!("CARGO_BIN_EXE_rolecall"))
        .args(["lint", "-o", "json"])
        .arg(&file)
        .output()
        .expect("run rolecall lint");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    report["findings"].as_array().expect("findings").clone()
}

/// The specs that `rolecall run --manifests` stores for these manifests, by kind.
async fn stored_in_folder_mode(manifests: &[String]) -> BTreeMap<String, Value> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("manifests")).expect("a folder");
    for (number, text) in manifests.iter().enumerate() {
        std::fs::write(folder.path().join(format!("manifests/{number}.yaml")), text).expect("a manifest");
    }
    let path = folder.path().join("rolecall.db");
    let mut child = Command::new(env!("CARGO_BIN_EXE_rolecall"))
        .args(["run", "--mode", "observe", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--google-endpoint", "http://127.0.0.1:9", "--google-credentials", "none"])
        .args(["--database", &format!("sqlite:{}", path.display())])
        .arg("--manifests")
        .arg(folder.path().join("manifests"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start rolecall");
    let stored = eventually("the specs are stored", async || {
        if !path.exists() {
            return Err("no database yet".to_owned());
        }
        let specs = Database::open(&path).specs();
        if specs.len() == manifests.len() { Ok(specs) } else { Err(format!("{specs:?}")) }
    })
    .await;
    child.kill().expect("killed");
    child.wait().expect("ended");
    stored.into_iter().map(|(kind, object)| (kind, object["spec"].clone())).collect()
}

#[tokio::test]
async fn the_api_server_accepts_and_refuses_the_same_as_folder_mode_with_the_same_words() {
    let cluster = cluster("checkout").await;
    let mut same_words = 0;
    let mut problems = Vec::new();
    for (text, from, good, bad) in rows() {
        for to in std::iter::once(from.to_owned()).chain(good) {
            if let Err(refused) = offered(&cluster, &replaced(text, from, &to)).await {
                problems.push(format!("`{to}` should be taken: {refused}"));
            }
        }
        for (to, reason, _) in bad {
            let text = replaced(text, from, &to);
            let refused = match offered(&cluster, &text).await {
                Err(refused) => refused,
                Ok(_) if TAKEN_BY_THE_SERVER.contains(&to.as_str()) => continue,
                Ok(_) => {
                    problems.push(format!("`{to}` should be refused ({reason})"));
                    continue;
                }
            };
            assert!([400, 422].contains(&refused.code), "`{to}`: {refused}");
            if reason != "RuleViolated" {
                continue;
            }
            // The message of the rule is that of the server, without the value that folder mode adds.
            let here = lint(&text);
            let rule = here.iter().find(|problem| problem["reason"] == reason).unwrap_or_else(|| panic!("`{to}`"));
            let message = rule["message"].as_str().expect("text").split(" (found `").next().expect("words");
            if refused.message.contains(message) {
                same_words += 1;
            } else {
                problems.push(format!("`{to}`: `{message}` is not in: {refused}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(same_words > 30, "{same_words}");
}

#[tokio::test]
async fn defaults_are_those_of_folder_mode() {
    let cluster = cluster("checkout").await;
    let provider = replaced(PROVIDER, "  state: Active\n  staleAfter: 26h\n", "");
    let provider = replaced(&replaced(&provider, "    strictness: Explain\n", ""), ", key: token", "");
    let provider = replaced(&provider, "        notAfter: \"2027-01-31T00:00:00Z\"\n", "");
    let target = replaced(TARGET, "  discoveryInterval: 5m\n", "");
    let mapping = replaced(MAPPING, "  mode: Enforce\n  onMissing: Revert\n  deletionPolicy: Revoke\n", "");
    let mut filled_in = 0;
    let manifests = [provider, target, mapping];
    let specs = stored_in_folder_mode(&manifests).await;
    for text in manifests {
        let stored = offered(&cluster, &text).await.expect("taken");
        let kind = stored["kind"].as_str().expect("a kind");
        assert_eq!(stored["spec"], specs[kind]);
        filled_in += usize::from(stored["spec"] != documents(&text)[0]["spec"]);
    }
    assert_eq!(filled_in, 3, "each of them has defaults");
}

/// A second value for every field.
const OTHERS: [(&str, &str); 3] = [
    (
        PROVIDER,
        r#"
state: Suspended
nestedGroups: Ignore
staleAfter: 1h
scim:
  strictness: Explain
  requestsPerSecond: 25
  tokens:
    - {name: b, secretRef: {name: okta-other, key: tokenSHA256}, notAfter: "2028-01-31T00:00:00Z"}
    - {name: c, secretRef: {name: okta-third}}
principals:
  allowedDomains: [corp.example, example.com]
  users: {googleAccount: {attribute: externalId}}
"#,
    ),
    (
        TARGET,
        r#"
project: shop-prod
locations: [us-central1, europe-west1]
discoveryInterval: 1m
driftInterval: 3m
documents:
  - resources: ["jobs/*"]
    unexpected: Ignore
    ignore: ["user:*"]
  - resources: ["services/*"]
allow:
  - namespaces: {matchLabels: {team: checkout}}
    identityProviders: [entra]
    resources: ["jobs/*"]
    roles: [roles/run.viewer]
    permit: [Orphan]
  - namespaces: {names: [billing]}
    identityProviders: [okta]
    resources: ["services/*"]
    roles: [roles/run.invoker]
"#,
    ),
    (
        MAPPING,
        r#"
description: another squad
subjects:
  - {identityProvider: entra, groups: [{externalId: 00g1abcd}, {displayName: team-billing}]}
  - {identityProvider: third, groups: [{displayName: team-third}]}
grants:
  - target: {name: shop-prod}
    resources: ["jobs/nightly"]
    roles: [roles/run.viewer, roles/run.developer]
    condition: {title: nights, description: by night, expression: "request.time.getHours() < 6"}
    notAfter: "2028-03-31T00:00:00Z"
  - {target: {name: shop-dev}, resources: ["services/*"], roles: [roles/run.invoker]}
mode: Suspend
onMissing: Report
deletionPolicy: Orphan
"#,
    ),
];

/// The fields below a node, as JSON pointers. Fields that a rule relates to each other change together.
fn fields(schema: &Value, pointer: &str, found: &mut Vec<String>) {
    let bound = schema.get("x-kubernetes-validations").is_some() && schema["type"] == "object";
    match schema["properties"].as_object() {
        Some(properties) if !bound => {
            for (name, child) in properties {
                fields(child, &format!("{pointer}/{name}"), found);
            }
        }
        _ => {
            if schema["items"]["properties"].is_object() {
                fields(&schema["items"], &format!("{pointer}/0"), found);
            }
            // An enumeration of one value has no second value yet.
            if schema["enum"].as_array().is_none_or(|values| values.len() > 1) {
                found.push(pointer.to_owned());
            }
        }
    }
}

#[tokio::test]
async fn every_field_of_a_spec_can_be_changed() {
    let cluster = cluster("checkout").await;
    let mut changed = 0;
    for (text, other) in OTHERS {
        let other: Value = serde_saphyr::from_str(other).expect("YAML");
        let mut object = documents(text).remove(0);
        object["metadata"]["name"] = json!("changing");
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        let crd = definition(&cluster, &kind).await;
        let mut pointers = Vec::new();
        fields(&schema(&crd)["properties"]["spec"], "", &mut pointers);
        let mut stored = cluster.admin.create(&object).await.expect("created");
        for pointer in pointers {
            let wanted =
                other.pointer(&pointer).unwrap_or_else(|| panic!("{kind}: no second value of {pointer}")).clone();
            let before = stored["metadata"]["generation"].clone();
            let (parent, field) = pointer.rsplit_once('/').expect("a field");
            match stored.pointer_mut(&format!("/spec{parent}")) {
                // An optional field without a default is absent.
                Some(Value::Object(fields)) => drop(fields.insert(field.to_owned(), wanted)),
                Some(Value::Array(items)) => items[field.parse::<usize>().expect("an index")] = wanted,
                _ => panic!("{kind} lacks {parent}"),
            }
            let sent = stored["spec"].clone();
            stored =
                cluster.admin.replace(&stored).await.unwrap_or_else(|refused| panic!("{kind} {pointer}: {refused}"));
            assert_ne!(stored["metadata"]["generation"], before, "{kind} {pointer}: a change counts");
            let kept = stored.pointer(&format!("/spec{pointer}")).expect("the field");
            let sent = sent.pointer(&pointer).expect("the field");
            assert!(covers(kept, sent), "{kind} {pointer}: {kept} instead of {sent}");
            changed += 1;
        }
        let (kind, name) = named(&object);
        cluster.admin.delete(&kind, &name).await;
    }
    assert!(changed > 25, "{changed}");
}

/// True when `kept` contains everything that was sent. Defaults may be added.
fn covers(kept: &Value, sent: &Value) -> bool {
    match (kept, sent) {
        (Value::Object(kept), Value::Object(sent)) => {
            sent.iter().all(|(key, value)| kept.get(key).is_some_and(|kept| covers(kept, value)))
        }
        (Value::Array(kept), Value::Array(sent)) => {
            kept.len() == sent.len() && kept.iter().zip(sent).all(|(kept, sent)| covers(kept, sent))
        }
        _ => kept == sent,
    }
}

/// Paths of fields without a description, in the form that `kubectl explain` accepts.
fn undescribed(schema: &Value, path: &str, seen: &mut usize, found: &mut Vec<String>) {
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        *seen += 1;
        // A reference to a documented type of Kubernetes itself, such as ObjectMeta, has its description beside it.
        let words = child["description"].as_str().unwrap_or_default();
        if words.len() < 5 || !words.ends_with('.') && !path.ends_with("apiVersion") && !path.ends_with("kind") {
            found.push(format!("{path}: `{words}`"));
        }
        undescribed(child, &path, seen, found);
        undescribed(&child["items"], &path, seen, found);
    }
}

#[tokio::test]
async fn kubectl_explains_every_field() {
    let cluster = cluster("checkout").await;
    let published = eventually("the kinds in OpenAPI", async || {
        let path = "/openapi/v3/apis/rolecall.dev/v1alpha1";
        let published = cluster.admin.call(Method::GET, path, "", String::new()).await;
        let published = published.map_err(|refused| refused.to_string())?;
        let schemas = &published["components"]["schemas"];
        let all = KINDS.iter().all(|kind| schemas.get(format!("dev.rolecall.v1alpha1.{kind}")).is_some());
        if all { Ok(schemas.clone()) } else { Err("not all of them".to_owned()) }
    })
    .await;
    let mut seen = 0;
    for kind in KINDS {
        let schema = &published[format!("dev.rolecall.v1alpha1.{kind}")];
        let mut schema = schema.clone();
        schema["properties"].as_object_mut().expect("fields").remove("metadata");
        let mut found = Vec::new();
        undescribed(&schema, kind, &mut seen, &mut found);
        assert_eq!(found, [] as [&str; 0]);
        assert!(schema["description"].as_str().is_some_and(|words| words.ends_with('.')), "{kind}");
    }
    assert!(seen > 100, "{seen}");
    let said = cluster.kubectl(&["explain", "rmap.spec.subjects.groups.displayName"]).await.ok();
    assert!(said.contains("displayName <string>") && said.contains("resolved once"), "{said}");
    let said = cluster.kubectl(&["explain", "crt.spec.allow"]).await.ok();
    assert!(said.contains("identityProviders\t<[]string> -required-"), "{said}");
    let said = cluster.kubectl(&["explain", "idp.spec", "--recursive"]).await.ok();
    assert!(said.contains("enum: Active, Suspended"), "{said}");
}

/// The columns of a table of kubectl.
fn columns(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or_default().split_whitespace().collect()
}

#[tokio::test]
async fn kubectl_shows_the_kinds_by_short_name_and_category_with_their_columns() {
    let cluster = cluster("tables").await;
    let text =
        |text: &str| text.replace("name: okta\n", "name: tables\n").replace("name: shop-dev\n", "name: tables\n");
    cluster.admin.apply(&text(PROVIDER)).await;
    cluster.admin.apply(&text(TARGET)).await;
    cluster.admin.apply(&MAPPING.replace("namespace: checkout", "namespace: tables")).await;
    let status = json!({
        "apiVersion": "rolecall.dev/v1alpha1", "kind": "RoleMapping",
        "metadata": {"name": "checkout-team", "namespace": "tables"},
        "status": {
            "grants": {"summary": "13/14", "desired": 14, "acknowledged": 13, "verified": 13, "pending": 1, "held": 0,
                       "failed": 0, "unowned": 0, "revoking": 0},
            "held": {"people": 3, "planHash": "abc"}, "lag": "1.8s",
            "drift": {"missing": 2, "reverted": 0, "foreign": 0, "remaining": 0},
            "conditions": [{"type": "Ready", "status": "False", "reason": "RevocationPending", "message": "words",
                            "lastTransitionTime": "2026-11-22T00:00:00Z"}],
        },
    });
    cluster.admin.apply_as("rolecall", "/status", &status).await.expect("a status");
    let mappings = cluster.kubectl(&["get", "rmap", "--namespace=tables"]).await.ok();
    assert_eq!(columns(&mappings), ["NAME", "MODE", "GRANTS", "HELD", "DRIFT", "LAG", "READY", "REASON", "AGE"]);
    let row: Vec<&str> = mappings.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(&row[..8], ["checkout-team", "Enforce", "13/14", "3", "2", "1.8s", "False", "RevocationPending"]);
    let targets = cluster.kubectl(&["get", "crt", "tables"]).await.ok();
    assert_eq!(columns(&targets), ["NAME", "PROJECT", "SERVICES", "IN-SYNC", "DRIFTED", "READY", "REASON", "AGE"]);
    let providers = cluster.kubectl(&["get", "idp", "tables"]).await.ok();
    let always = ["NAME", "STATE", "DIALECT", "USERS", "GROUPS", "READY", "REASON"];
    assert_eq!(columns(&providers), [&always[..], &["AGE"]].concat());
    let wide = cluster.kubectl(&["get", "idp", "tables", "-o", "wide"]).await.ok();
    assert_eq!(columns(&wide), [&always[..], &["ENDPOINT", "AGE"]].concat());
    let category = cluster.kubectl(&["get", "rolecall", "--namespace=tables", "-o", "name"]).await.ok();
    let names: BTreeSet<&str> = category.lines().collect();
    let wanted = [
        "identityprovider.rolecall.dev/tables",
        "cloudruntarget.rolecall.dev/tables",
        "rolemapping.rolecall.dev/checkout-team",
    ];
    assert!(wanted.iter().all(|name| names.contains(name)), "{names:?}");
    cluster.admin.delete("IdentityProvider", "tables").await;
    cluster.admin.delete("CloudRunTarget", "tables").await;
}

#[tokio::test]
async fn status_is_written_apart_from_the_rest() {
    let cluster = cluster("apart").await;
    for text in [PROVIDER, TARGET, MAPPING] {
        let mut object = documents(text).remove(0);
        object["metadata"]["name"] = json!("apart");
        if object["kind"] == "RoleMapping" {
            object["metadata"]["namespace"] = json!("apart");
        }
        object["status"] = json!({"lastHandledReconcileAt": "by-the-author"});
        let (kind, name) = named(&object);
        let stored = cluster.admin.create(&object).await.expect("created");
        assert_eq!(stored["status"], json!({"observedGeneration": -1}), "{kind}: an author does not write it");
        let generation = stored["metadata"]["generation"].clone();
        // Through the subresource, only the status changes.
        let mut status = stored.clone();
        status["status"] = json!({"lastHandledReconcileAt": "by-the-operator"});
        status["spec"] = documents(text)[0]["spec"].clone();
        status["metadata"]["labels"] = json!({"by": "the-operator"});
        if kind == "RoleMapping" {
            status["spec"]["description"] = json!("by the operator");
        }
        let path = format!("{}/status", path(&kind, &name));
        let stored = cluster
            .admin
            .call(Method::PUT, &path, "application/json", status.to_string())
            .await
            .unwrap_or_else(|refused| panic!("{kind}: {refused}"));
        assert_eq!(stored["status"]["lastHandledReconcileAt"], "by-the-operator", "{kind}");
        assert_ne!(stored["spec"]["description"], "by the operator", "{kind}");
        assert_eq!(stored["metadata"].get("labels"), None, "{kind}");
        assert_eq!(stored["metadata"]["generation"], generation, "{kind}: a status is no new generation");
        // Through the object, the status does not change.
        let mut whole = stored.clone();
        whole["status"] = json!({"lastHandledReconcileAt": "by-the-author"});
        let stored = cluster.admin.replace(&whole).await.expect("replaced");
        assert_eq!(stored["status"]["lastHandledReconcileAt"], "by-the-operator", "{kind}");
        cluster.admin.delete(&kind, &name).await;
    }
}

#[tokio::test]
async fn tokens_of_two_field_managers_live_side_by_side() {
    let cluster = cluster("checkout").await;
    let provider = |token: &str| {
        let mut object = documents(PROVIDER).remove(0);
        object["metadata"]["name"] = json!("merged");
        object["spec"]["scim"]["tokens"] = json!([{"name": token, "secretRef": {"name": format!("okta-{token}")}}]);
        object
    };
    let names = |object: &Value| -> Vec<String> {
        let tokens = object["spec"]["scim"]["tokens"].as_array().expect("tokens");
        tokens.iter().map(|token| token["name"].as_str().expect("a name").to_owned()).collect()
    };
    let apply = async |manager: &str, object: Value| {
        cluster.admin.apply_as(manager, "", &object).await.unwrap_or_else(|refused| panic!("{manager}: {refused}"))
    };
    apply("platform", provider("a")).await;
    let both = apply("rotation", provider("b")).await;
    assert_eq!(names(&both), ["a", "b"]);
    // A manager that applies another list removes only its own entry.
    let rotated = apply("rotation", provider("c")).await;
    assert_eq!(names(&rotated), ["a", "c"]);
    let subjects = |provider: &str| {
        let mut object = documents(MAPPING).remove(0);
        object["metadata"]["name"] = json!("merged");
        object["spec"]["subjects"] = json!([{"identityProvider": provider, "groups": [{"displayName": "team"}]}]);
        object
    };
    apply("platform", subjects("okta")).await;
    let both = apply("team", subjects("entra")).await;
    assert_eq!(both["spec"]["subjects"].as_array().map(Vec::len), Some(2));
    cluster.admin.delete("IdentityProvider", "merged").await;
    cluster.admin.delete("RoleMapping", "checkout/merged").await;
}
