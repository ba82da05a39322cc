//! The Helm chart, rendered by a real Helm.
//!
//! The Helm binary is the one in `ROLECALL_TEST_HELM`, or else the one that `scripts/cluster_tools.py` finds or builds.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and says where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

#[path = "../common/alerts.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod alerts_asked;
mod gitops;
mod kept;
mod monitoring;
mod notes;
mod options;
mod pod;
mod refusals;
mod rights;

/// A Kubernetes version for `helm template`, which has no cluster to read it from.
const KUBERNETES: &str = "1.36.0";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("charts/rolecall")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn helm() -> &'static Path {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    HELM.get_or_init(|| {
        if let Some(path) = std::env::vars_os().find(|(name, _)| name == "ROLECALL_TEST_HELM").map(|(_, path)| path) {
            return PathBuf::from(path);
        }
        let output = Command::new("python3")
            .arg(root().join("scripts/cluster_tools.py"))
            .args(["--only", "helm"])
            .output()
            .expect("python3 is needed to find helm");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let path = text.lines().find_map(|line| line.strip_prefix("ROLECALL_TEST_HELM="));
        PathBuf::from(path.unwrap_or_else(|| panic!("no helm: {}", String::from_utf8_lossy(&output.stderr))))
    })
}

/// Runs Helm with these values on standard input. Returns its output, or its error.
fn run(args: &[&str], chart: &Path, values: &Value) -> Result<String, String> {
    let mut child = Command::new(helm())
        .args(args)
        .arg(chart)
        .args(["--namespace", "rolecall-system", "--values", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("helm starts");
    child.stdin.take().unwrap().write_all(values.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
}

fn template(chart: &Path, values: &Value) -> Result<Vec<Value>, String> {
    let text = run(&["template", "rolecall", "--kube-version", KUBERNETES], chart, values)?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("helm prints YAML");
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

/// The smallest accepted values, extended by these.
fn with(values: Value) -> Value {
    let mut all = json!({ "mode": "observe" });
    merge(&mut all, values);
    all
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[track_caller]
fn render(values: Value) -> Vec<Value> {
    template(&chart(), &with(values)).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refusal(values: Value) -> String {
    match template(&chart(), &with(values)) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[track_caller]
fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

#[track_caller]
fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    of_kind(objects, kind)
        .into_iter()
        .find(|object| object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} `{name}`"))
}

fn pod_of(objects: &[Value]) -> &Value {
    &one(objects, "Deployment")["spec"]["template"]["spec"]
}

fn container(objects: &[Value]) -> &Value {
    &pod_of(objects)["containers"][0]
}

fn args(objects: &[Value]) -> Vec<&str> {
    container(objects)["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect()
}

/// Every option enabled.
/// Documents of a SCIM resource type.
fn scim_schemas() -> Value {
    json!([
        { "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"], "id": "urn:example:Device",
            "attributes": [{ "name": "serial" }] },
        { "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"], "name": "Device",
            "endpoint": "/Devices", "schema": "urn:example:Device" },
    ])
}

fn everything() -> Value {
    json!({
        "mode": "enforce",
        "externalUrl": "https://rolecall.example.com",
        "secrets": ["okta-scim", "entra-scim"],
        "google": { "endpoint": "http://emulator.test:9090", "credentials": "none" },
        "ingress": { "enabled": true, "className": "nginx", "hosts": ["rolecall.example.com"],
            "tls": [{ "secretName": "rolecall-tls", "hosts": ["rolecall.example.com"] }] },
        "httpRoute": { "enabled": true, "parentRefs": [{ "name": "public", "namespace": "gateways" }],
            "hostnames": ["rolecall.example.com"] },
        "networkPolicy": { "enabled": true,
            "admin": { "from": [{ "namespaceSelector": { "matchLabels": { "name": "monitoring" } } }] } },
        "scimSchemas": scim_schemas(),
        "serviceMonitor": { "enabled": true },
        "prometheusRule": { "enabled": true },
    })
}
