//! The Helm chart, as a real Helm renders it.
//!
//! The binary is the one of `ROLECALL_TEST_HELM`, or else what `scripts/cluster_tools.py` finds or builds.

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

/// A Kubernetes version for `helm template`, which has no cluster to ask.
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

/// Runs Helm with these values on standard input. Returns what it printed, or what it complained about.
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

/// The least that is accepted, and these values.
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

fn pod(objects: &[Value]) -> &Value {
    &one(objects, "Deployment")["spec"]["template"]["spec"]
}

fn container(objects: &[Value]) -> &Value {
    &pod(objects)["containers"][0]
}

fn args(objects: &[Value]) -> Vec<&str> {
    container(objects)["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect()
}

/// Everything that can be turned on.
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
        "serviceMonitor": { "enabled": true },
        "prometheusRule": { "enabled": true },
    })
}

// What is refused.

#[test]
fn helm_lint_has_nothing_to_say() {
    for values in [with(json!({})), everything()] {
        let said = run(&["lint", "--strict"], &chart(), &values).unwrap_or_else(|error| panic!("{error}"));
        assert!(said.contains("0 chart(s) failed"), "{said}");
    }
}

#[test]
fn mode_is_required_and_has_no_default() {
    for values in [json!({}), json!({ "mode": null }), json!({ "mode": "Enforce" })] {
        let error = template(&chart(), &values).expect_err("no mode");
        assert!(error.contains("mode"), "{error}");
    }
    let error = template(&chart(), &json!({})).unwrap_err();
    assert!(error.contains("value must be one of 'observe', 'enforce'"), "{error}");
}

#[test]
fn two_replicas_are_refused_with_the_reason() {
    let error = refusal(json!({ "replicas": 2 }));
    assert!(error.contains("replicas: 2 is not possible with SQLite: its one file has one writer"), "{error}");
    assert_eq!(one(&render(json!({ "replicas": 0 })), "Deployment")["spec"]["replicas"], 0);
}

#[test]
fn what_no_schema_can_say_is_refused_with_the_reason() {
    for (values, reason) in [
        (json!({ "ports": { "scim": 8081 } }), "ports: scim and admin are both 8081"),
        (json!({ "google": { "endpoint": "http://emulator.test" } }), "adc is sent to https://*.googleapis.com only"),
        (json!({ "google": { "endpoint": "https://evil.test/.googleapis.com" } }), "adc is sent to"),
        (json!({ "ingress": { "enabled": true } }), "ingress.hosts: is empty"),
        (json!({ "httpRoute": { "enabled": true } }), "httpRoute.parentRefs: is empty"),
        (json!({ "serviceAccount": { "create": false } }), "serviceAccount.name: is empty"),
    ] {
        let error = refusal(values);
        assert!(error.contains(reason), "{error}");
    }
    render(json!({ "google": { "endpoint": "https://europe-west1-run.googleapis.com" } }));
    render(json!({ "serviceAccount": { "create": false, "name": "mine" } }));
}

/// The rules of the schema: where, which keyword, what it says.
fn rules(schema: &Value, at: &str, found: &mut Vec<(String, String, Value)>) {
    for keyword in
        ["pattern", "enum", "minimum", "maximum", "minLength", "maxLength", "uniqueItems", "not", "required", "type"]
    {
        if let Some(rule) = schema.get(keyword) {
            found.push((at.to_owned(), keyword.to_owned(), rule.clone()));
        }
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => found.push((at.to_owned(), "additionalProperties".to_owned(), json!(false))),
        Some(Value::Object(_)) => rules(&schema["additionalProperties"], &format!("{at}/any"), found),
        _ => {}
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        rules(schema, &format!("{at}/{name}"), found);
    }
    if schema["items"].is_object() {
        rules(&schema["items"], &format!("{at}/0"), found);
    }
}

/// A value that breaks a rule, for the rules that do not say one themselves.
fn bad_value(at: &str, keyword: &str) -> Value {
    match (at, keyword) {
        ("/externalUrl" | "/google/endpoint", "pattern") => json!("rolecall.example.com"),
        ("/secrets/0" | "/imagePullSecrets/0/name" | "/serviceAccount/name", "pattern") => json!("Okta_SCIM"),
        ("/secrets", "uniqueItems") => json!(["okta", "okta"]),
        ("/driftInterval" | "/finalizerDeadline", "pattern") => json!("5 fortnights"),
        ("/serviceMonitor/interval" | "/serviceMonitor/scrapeTimeout", "pattern") => json!("30"),
        ("/image/repository", "pattern") => json!("ghcr.io/rolecall/rolecall:latest"),
        ("/image/tag", "pattern") => json!("a b"),
        ("/image/digest", "pattern") => json!("sha256:abc"),
        ("/nameOverride" | "/fullnameOverride", "pattern") => json!("Role Call"),
        ("/database/sqlite/path", "pattern") => json!("/rolecall.db"),
        ("/database/sqlite/size", "pattern") => json!("much"),
        ("/listenAddress", "pattern") => json!("localhost"),
        ("/ingress/hosts/0" | "/ingress/tls/0/hosts/0" | "/httpRoute/hostnames/0", "pattern") => json!("https://a.b"),
        ("/prometheusRule/runbookUrl", "pattern") => json!("https://a.b/#c"),
        ("/extraEnv/0/name", "not") => json!("ROLECALL_MODE"),
        _ => panic!("no bad value for {keyword} at {at}: every rule has a refusing case"),
    }
}

/// Values in which `value` stands at this path.
fn placed(at: &str, value: Value) -> Value {
    at.rsplit('/').filter(|part| !part.is_empty()).fold(value, |value, part| match part {
        "0" => json!([value]),
        name => Value::Object(Map::from_iter([(name.to_owned(), value)])),
    })
}

#[test]
fn every_rule_of_the_schema_refuses() {
    let schema: Value = serde_json::from_str(&read("charts/rolecall/values.schema.json")).unwrap();
    let mut all = Vec::new();
    rules(&schema, "", &mut all);
    assert!(all.len() > 100, "only {} rules were found", all.len());
    let mut problems = Vec::new();
    for (at, keyword, rule) in all {
        let value = match (keyword.as_str(), &rule) {
            ("required", _) if at.is_empty() => json!({ "mode": null }),
            ("type", _) if at.is_empty() => continue, // Helm itself refuses values that are no map
            ("required", _) => json!({}),
            ("type", Value::String(name)) if name == "string" => json!(7),
            ("type", _) => json!("text"),
            ("enum", _) => json!("nonsense"),
            ("minimum", rule) => json!(rule.as_i64().unwrap() - 1),
            ("maximum", rule) => json!(rule.as_i64().unwrap() + 1),
            ("minLength", _) => json!(""),
            ("maxLength", rule) => json!("a".repeat(usize::try_from(rule.as_u64().unwrap()).unwrap() + 1)),
            ("additionalProperties", _) => json!({ "unheardOf": 1 }),
            (keyword, _) => bad_value(&at, keyword),
        };
        match template(&chart(), &with(placed(&at, value))) {
            Ok(_) => problems.push(format!("{keyword} at {at}: accepted")),
            Err(error) if error.contains(&format!("at '{at}'")) => {}
            Err(error) => problems.push(format!("{keyword} at {at}: {error}")),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_schema_says_why_for_what_a_person_would_ask() {
    let schema: Value = serde_json::from_str(&read("charts/rolecall/values.schema.json")).unwrap();
    for (pointer, reason) in [
        ("/properties/mode", "the choice of whoever installs this"),
        ("/properties/replicas", "its one file has one writer"),
        ("/properties/replicas", "no PodDisruptionBudget"),
        ("/properties/secrets", "it has no right to any other one"),
        ("/properties/database/properties/sqlite/properties/accessMode", "SQLite's locks"),
    ] {
        let says = schema.pointer(pointer).unwrap()["description"].as_str().unwrap();
        assert!(says.contains(reason), "{pointer}: {says}");
    }
}

#[test]
fn every_default_value_is_known_to_the_schema() {
    fn unknown(values: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, value) in values.as_object().into_iter().flatten() {
            match properties.get(name) {
                Some(schema) => unknown(value, schema, &format!("{at}/{name}"), found),
                None => found.push(format!("{at}/{name}")),
            }
        }
        for name in properties.keys().filter(|name| values.get(name.as_str()).is_none()) {
            found.push(format!("{at}/{name} has no line in values.yaml"));
        }
    }
    let values: Value = serde_saphyr::from_str(&read("charts/rolecall/values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("charts/rolecall/values.schema.json")).unwrap();
    let mut found = Vec::new();
    unknown(&values, &schema, "", &mut found);
    assert_eq!(found, ["/resources/claims has no line in values.yaml", "/global has no line in values.yaml"]);
}

// Rights.

fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> Value {
    let mut rule = json!({ "apiGroups": groups, "resources": resources, "verbs": verbs });
    if !names.is_empty() {
        rule["resourceNames"] = json!(names);
    }
    rule
}

#[test]
fn the_cluster_role_has_exactly_these_rules() {
    let kinds = ["identityproviders", "cloudruntargets", "rolemappings"];
    let expected = [
        rule(&["rolecall.dev"], &kinds, &[], &["list", "watch"]),
        rule(&["rolecall.dev"], &["rolemappings"], &[], &["patch"]),
        rule(
            &["rolecall.dev"],
            &kinds.map(|kind| format!("{kind}/status")).each_ref().map(String::as_str),
            &[],
            &["patch"],
        ),
        rule(&[""], &["namespaces"], &[], &["list", "watch"]),
        rule(&["events.k8s.io"], &["events"], &[], &["create", "patch"]),
        rule(
            &["apiextensions.k8s.io"],
            &["customresourcedefinitions"],
            &kinds.map(|kind| format!("{kind}.rolecall.dev")).each_ref().map(String::as_str),
            &["get"],
        ),
        rule(&["coordination.k8s.io"], &["leases"], &["rolecall"], &["get"]),
    ];
    let objects = render(everything());
    assert_eq!(named(&objects, "ClusterRole", "rolecall")["rules"], json!(expected));
}

#[test]
fn the_role_has_the_lease_and_the_named_secrets_and_no_others() {
    let lease = [
        rule(&["coordination.k8s.io"], &["leases"], &[], &["create"]),
        rule(&["coordination.k8s.io"], &["leases"], &["rolecall"], &["patch"]),
    ];
    let objects = render(json!({}));
    assert_eq!(
        one(&objects, "Role")["rules"],
        json!(lease),
        "without names there is no rule, which would be all Secrets"
    );

    let objects = render(json!({ "secrets": ["okta-scim", "entra-scim"] }));
    let mut expected = lease.to_vec();
    expected.push(rule(&[""], &["secrets"], &["okta-scim", "entra-scim"], &["list", "watch"]));
    assert_eq!(one(&objects, "Role")["rules"], json!(expected));
    assert_eq!(one(&objects, "Role")["metadata"]["namespace"], "rolecall-system");
}

#[test]
fn no_rule_has_a_wildcard_and_only_the_role_knows_secrets() {
    for object in render(everything()) {
        let kind = object["kind"].as_str().unwrap().to_owned();
        for rule in object["rules"].as_array().filter(|_| kind.ends_with("Role")).into_iter().flatten() {
            assert!(!rule.to_string().contains('*'), "{rule}");
            let secrets = rule["resources"].as_array().unwrap().contains(&json!("secrets"));
            assert!(!secrets || (kind == "Role" && rule["resourceNames"].is_array()), "{kind}: {rule}");
        }
    }
}

#[test]
fn both_roles_are_bound_to_the_service_account_alone() {
    let objects = render(json!({ "serviceAccount": { "name": "mine" } }));
    for (binding, role) in [("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")] {
        let binding = one(&objects, binding);
        assert_eq!(
            binding["roleRef"],
            json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": "rolecall" })
        );
        assert_eq!(
            binding["subjects"],
            json!([{ "kind": "ServiceAccount", "name": "mine", "namespace": "rolecall-system" }])
        );
    }
    assert_eq!(pod(&objects)["serviceAccountName"], "mine");
}

#[test]
fn only_role_mappings_are_aggregated() {
    let objects = render(json!({}));
    let mut seen = BTreeMap::new();
    for role in of_kind(&objects, "ClusterRole") {
        for (label, value) in role["metadata"]["labels"].as_object().unwrap() {
            if let Some(into) = label.strip_prefix("rbac.authorization.k8s.io/aggregate-to-") {
                assert_eq!(value, "true");
                seen.insert(into.to_owned(), role["rules"].clone());
            }
        }
    }
    let write = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let write = json!([rule(&["rolecall.dev"], &["rolemappings"], &[], &write)]);
    let view = json!([rule(&["rolecall.dev"], &["rolemappings"], &[], &["get", "list", "watch"])]);
    let expected = [("admin", write.clone()), ("edit", write), ("view", view)];
    assert_eq!(seen, expected.map(|(into, rules)| (into.to_owned(), rules)).into());

    let objects = render(json!({ "rbac": { "aggregate": false } }));
    assert_eq!(of_kind(&objects, "ClusterRole").len(), 1);
    let objects = render(json!({ "rbac": { "create": false } }));
    assert!(objects.iter().all(|object| !object["kind"].as_str().unwrap().contains("Role")), "no right at all");
}

#[test]
fn the_service_account_carries_workload_identity_and_mounts_its_token_only_where_the_pod_says_so() {
    let account = "rolecall@shop-dev.iam.gserviceaccount.com";
    let objects = render(json!({ "serviceAccount": { "annotations": { "iam.gke.io/gcp-service-account": account } } }));
    let found = one(&objects, "ServiceAccount");
    assert_eq!(found["metadata"]["annotations"], json!({ "iam.gke.io/gcp-service-account": account }));
    assert_eq!(found["automountServiceAccountToken"], false);
    assert_eq!(pod(&objects)["automountServiceAccountToken"], true);
}

// The pod.

#[test]
fn the_pod_keeps_to_the_restricted_security_standard() {
    let objects = render(json!({}));
    assert_eq!(
        pod(&objects)["securityContext"],
        json!({
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": { "type": "RuntimeDefault" },
        })
    );
    assert_eq!(
        container(&objects)["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        })
    );
    for volume in pod(&objects)["volumes"].as_array().unwrap() {
        assert!(volume.get("persistentVolumeClaim").or(volume.get("emptyDir")).is_some(), "{volume}");
    }
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod(&objects).get(field).is_none(), "{field}");
    }
    assert_eq!(pod(&objects)["containers"].as_array().unwrap().len(), 1);
}

#[test]
fn the_old_pod_ends_before_the_new_one_starts() {
    let objects = render(json!({}));
    let deployment = one(&objects, "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["strategy"], json!({ "type": "Recreate" }));
    assert_eq!(pod(&objects)["terminationGracePeriodSeconds"], 60);
}

#[test]
fn the_probes_ask_the_admin_port() {
    let objects = render(json!({ "ports": { "scim": 18080, "admin": 18081 } }));
    for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(container(&objects)[probe]["httpGet"], json!({ "path": path, "port": "admin" }), "{probe}");
    }
    let ports: Vec<_> = container(&objects)["ports"].as_array().unwrap().iter().collect();
    assert_eq!(ports[0]["containerPort"], 18080);
    assert_eq!(ports[1], &json!({ "name": "admin", "containerPort": 18081, "protocol": "TCP" }));
    assert!(args(&objects).windows(2).any(|pair| pair == ["--listen", "0.0.0.0:18080"]));
    assert!(args(&objects).windows(2).any(|pair| pair == ["--admin-listen", "0.0.0.0:18081"]));
}

#[test]
fn the_pods_are_spread_by_their_own_labels() {
    let objects = render(json!({}));
    let labels = &one(&objects, "Deployment")["spec"]["selector"]["matchLabels"];
    let spread = pod(&objects)["topologySpreadConstraints"].as_array().unwrap();
    assert_eq!(spread.len(), 2);
    for constraint in spread {
        assert_eq!(&constraint["labelSelector"]["matchLabels"], labels);
        assert_eq!(constraint["whenUnsatisfiable"], "ScheduleAnyway");
    }
    let own = json!([{ "maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "a": "b" } } }]);
    let objects = render(json!({ "topologySpreadConstraints": own.clone() }));
    assert_eq!(pod(&objects)["topologySpreadConstraints"], own);
}

#[test]
fn where_the_pod_runs_can_be_said() {
    let wanted = json!({
        "nodeSelector": { "pool": "system" },
        "tolerations": [{ "key": "system", "operator": "Exists" }],
        "affinity": { "podAntiAffinity": {} },
        "priorityClassName": "system-cluster-critical",
        "imagePullSecrets": [{ "name": "registry" }],
    });
    let plain = render(json!({}));
    for field in wanted.as_object().unwrap().keys() {
        assert!(pod(&plain).get(field).is_none(), "{field}");
    }
    let objects = render(wanted.clone());
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&pod(&objects)[field], value, "{field}");
    }
}

#[test]
fn the_image_is_the_version_of_the_program_unless_something_else_is_said() {
    let version = env!("CARGO_PKG_VERSION");
    let image = |values| container(&render(values))["image"].clone();
    assert_eq!(image(json!({})), format!("ghcr.io/rolecall/rolecall:{version}"));
    assert_eq!(image(json!({ "image": { "tag": "main" } })), "ghcr.io/rolecall/rolecall:main");
    let digest = format!("sha256:{}", "ab".repeat(32));
    let by_digest = image(json!({ "image": { "tag": "main", "digest": digest.clone() } }));
    assert_eq!(by_digest, format!("ghcr.io/rolecall/rolecall@{digest}"));
    let chart: Value = serde_saphyr::from_str(&read("charts/rolecall/Chart.yaml")).unwrap();
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(version), &json!(version)));
}

/// The long flags that `rolecall run` documents.
fn documented_flags() -> BTreeSet<String> {
    let page = read("docs/reference/flags.md");
    let section = page.split("\n## ").find(|section| section.starts_with("rolecall run\n")).unwrap();
    let table = section.split("```").next().unwrap();
    table
        .lines()
        .filter_map(|line| line.strip_prefix("| `--"))
        .map(|line| format!("--{}", line.split([' ', '`']).next().unwrap()))
        .collect()
}

#[test]
fn every_flag_of_run_has_a_value_of_the_chart_and_no_other_flag_is_given() {
    let objects = render(everything());
    let args = args(&objects);
    assert_eq!(args[0], "run");
    let mut given: BTreeSet<String> = args[1..].chunks(2).map(|pair| pair[0].to_owned()).collect();
    assert!(args[1..].chunks(2).all(|pair| pair.len() == 2 && !pair[1].starts_with("--")), "{args:?}");
    let environment = container(&objects)["env"].as_array().unwrap();
    let pod_name = environment.iter().find(|entry| entry["name"] == "ROLECALL_POD_NAME").unwrap();
    assert_eq!(pod_name["valueFrom"], json!({ "fieldRef": { "fieldPath": "metadata.name" } }));
    given.insert("--pod-name".to_owned());
    let mut documented = documented_flags();
    assert!(documented.remove("--manifests"), "the way without a cluster");
    assert_eq!(given, documented);
}

#[test]
fn values_become_flags() {
    let objects = render(json!({
        "mode": "enforce", "externalUrl": "https://rolecall.example.com", "driftInterval": "1h",
        "finalizerDeadline": "30m", "log": { "format": "text", "level": "rolecall=debug,info" },
        "google": { "endpoint": "http://emulator.test:9090", "credentials": "none" },
        "database": { "sqlite": { "path": "/data/x/y.db" } }, "listenAddress": "[::]",
    }));
    assert_eq!(
        args(&objects),
        [
            "run",
            "--listen",
            "[::]:8080",
            "--admin-listen",
            "[::]:8081",
            "--database",
            "sqlite:/data/x/y.db",
            "--mode",
            "enforce",
            "--namespace",
            "rolecall-system",
            "--external-url",
            "https://rolecall.example.com",
            "--google-endpoint",
            "http://emulator.test:9090",
            "--google-credentials",
            "none",
            "--drift-interval",
            "1h",
            "--finalizer-deadline",
            "30m",
            "--log-format",
            "text",
            "--log-level",
            "rolecall=debug,info",
        ]
    );
    let mount =
        container(&objects)["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "database");
    assert_eq!(mount.unwrap()["mountPath"], "/data/x");
    let plain = render(json!({}));
    let unsaid: Vec<_> =
        args(&plain).into_iter().filter(|arg| ["--external-url", "--google-endpoint"].contains(arg)).collect();
    assert!(unsaid.is_empty(), "{unsaid:?}");
}

#[test]
fn more_environment_volumes_and_mounts_are_added_to_what_is_there() {
    let values = json!({
        "extraEnv": [{ "name": "HTTPS_PROXY", "value": "http://proxy:3128" }],
        "extraVolumes": [{ "name": "google", "configMap": { "name": "google" } }],
        "extraVolumeMounts": [{ "name": "google", "mountPath": "/google", "readOnly": true }],
    });
    let (plain, more) = (render(json!({})), render(values.clone()));
    for (at, value) in [
        ("/containers/0/env", "extraEnv"),
        ("/volumes", "extraVolumes"),
        ("/containers/0/volumeMounts", "extraVolumeMounts"),
    ] {
        let mut expected = pod(&plain).pointer(at).unwrap().as_array().unwrap().clone();
        expected.extend(values[value].as_array().unwrap().iter().cloned());
        assert_eq!(pod(&more).pointer(at).unwrap(), &json!(expected), "{at}");
    }
}

// The volume and the definitions.

#[test]
fn the_volume_is_kept_on_uninstall() {
    let objects = render(
        json!({ "database": { "sqlite": { "size": "20Gi", "storageClass": "fast", "annotations": { "a": "b" } } } }),
    );
    let claim = one(&objects, "PersistentVolumeClaim");
    assert_eq!(claim["metadata"]["annotations"], json!({ "helm.sh/resource-policy": "keep", "a": "b" }));
    assert_eq!(
        claim["spec"],
        json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": { "requests": { "storage": "20Gi" } } })
    );
    let used = &pod(&objects)["volumes"][0]["persistentVolumeClaim"]["claimName"];
    assert_eq!(used, &claim["metadata"]["name"]);

    let objects = render(json!({ "database": { "sqlite": { "existingClaim": "mine" } } }));
    assert!(of_kind(&objects, "PersistentVolumeClaim").is_empty());
    assert_eq!(pod(&objects)["volumes"][0]["persistentVolumeClaim"]["claimName"], "mine");
}

#[test]
fn there_is_never_a_pod_disruption_budget() {
    assert!(of_kind(&render(everything()), "PodDisruptionBudget").is_empty());
}

#[test]
fn the_definitions_of_the_chart_are_those_of_the_repository() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names("charts/rolecall/files/crds"), names("crds"), "run `make crds`");
    for name in names("crds") {
        let (copy, original) = (read(&format!("charts/rolecall/files/crds/{name}")), read(&format!("crds/{name}")));
        assert!(copy == original, "charts/rolecall/files/crds/{name} is stale: run `make crds`");
    }
}

#[test]
fn the_definitions_are_rendered_unchanged_and_kept_on_uninstall() {
    let objects = render(json!({}));
    let mut rendered = of_kind(&objects, "CustomResourceDefinition").len();
    for entry in fs::read_dir(root().join("crds")).unwrap() {
        let mut expected: Value = serde_saphyr::from_str(&fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        expected["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
        let name = expected["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(named(&objects, "CustomResourceDefinition", &name), &expected);
        rendered -= 1;
    }
    assert_eq!(rendered, 0);
    let objects = render(json!({ "crds": { "install": false } }));
    assert!(of_kind(&objects, "CustomResourceDefinition").is_empty());
}

// Options.

#[test]
fn every_option_is_off_unless_it_is_turned_on() {
    let kinds = |objects: &[Value]| -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for object in objects {
            *kinds.entry(object["kind"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        kinds
    };
    let mut expected: BTreeMap<String, usize> = [
        ("ClusterRole", 3),
        ("ClusterRoleBinding", 1),
        ("CustomResourceDefinition", 3),
        ("Deployment", 1),
        ("PersistentVolumeClaim", 1),
        ("Role", 1),
        ("RoleBinding", 1),
        ("Service", 2),
        ("ServiceAccount", 1),
    ]
    .map(|(kind, n)| (kind.to_owned(), n))
    .into();
    assert_eq!(kinds(&render(json!({}))), expected);
    for kind in ["HTTPRoute", "Ingress", "NetworkPolicy", "PrometheusRule", "ServiceMonitor"] {
        expected.insert(kind.to_owned(), 1);
    }
    assert_eq!(kinds(&render(everything())), expected);
}

#[test]
fn every_object_carries_the_labels_of_the_release_and_what_is_namespaced_its_namespace() {
    let mut values = everything();
    values["commonLabels"] = json!({ "team": "platform" });
    for object in render(values) {
        let kind = object["kind"].as_str().unwrap();
        if kind == "CustomResourceDefinition" {
            continue; // they outlive the release
        }
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/instance"], "rolecall", "{kind}");
        assert_eq!(labels["team"], "platform", "{kind}");
        let namespace = &object["metadata"]["namespace"];
        assert_eq!(namespace.is_string(), !kind.starts_with("ClusterRole"), "{kind}");
    }
}

#[test]
fn names_leave_room_for_what_is_named_after_them() {
    for object in render(json!({ "fullnameOverride": "a".repeat(45), "crds": { "install": false } })) {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 63, "{}: {name}", object["kind"]);
    }
}

#[test]
fn the_admin_port_has_a_service_of_its_own() {
    let objects =
        render(json!({ "service": { "type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"] } }));
    let scim = named(&objects, "Service", "rolecall");
    assert_eq!(scim["spec"]["type"], "LoadBalancer");
    assert_eq!(scim["spec"]["loadBalancerSourceRanges"], json!(["192.0.2.0/24"]));
    let targets = |service: &Value| -> Vec<Value> {
        service["spec"]["ports"].as_array().unwrap().iter().map(|port| port["targetPort"].clone()).collect()
    };
    assert_eq!(targets(scim), ["scim"]);
    let admin = named(&objects, "Service", "rolecall-admin");
    assert_eq!(targets(admin), ["admin"]);
    assert_eq!(admin["spec"]["type"], "ClusterIP");
    let labels = one(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
    for service in [scim, admin] {
        for (label, value) in service["spec"]["selector"].as_object().unwrap() {
            assert_eq!(labels.get(label), Some(value));
        }
    }
}

#[test]
fn ingress_and_route_lead_to_scim_and_nowhere_else() {
    let objects = render(everything());
    let ingress = &one(&objects, "Ingress")["spec"];
    assert_eq!(ingress["ingressClassName"], "nginx");
    assert_eq!(ingress["tls"][0]["secretName"], "rolecall-tls");
    let backend = json!({ "service": { "name": "rolecall", "port": { "name": "scim" } } });
    assert_eq!(
        ingress["rules"],
        json!([{ "host": "rolecall.example.com",
            "http": { "paths": [{ "path": "/idp/", "pathType": "Prefix", "backend": backend }] } }])
    );
    let route = &one(&objects, "HTTPRoute")["spec"];
    assert_eq!(route["parentRefs"], json!([{ "name": "public", "namespace": "gateways" }]));
    assert_eq!(route["hostnames"], json!(["rolecall.example.com"]));
    assert_eq!(
        route["rules"],
        json!([{ "matches": [{ "path": { "type": "PathPrefix", "value": "/idp/" } }],
            "backendRefs": [{ "name": "rolecall", "port": 80 }] }])
    );
}

#[test]
fn the_network_policy_lets_nobody_to_the_admin_port_unless_named() {
    let objects = render(json!({ "networkPolicy": { "enabled": true } }));
    let policy = &one(&objects, "NetworkPolicy")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["ingress"], json!([{ "ports": [{ "port": "scim", "protocol": "TCP" }] }]));
    let ports: BTreeSet<i64> = policy["egress"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule.get("to").is_none())
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| port["port"].as_i64().unwrap())
        .collect();
    assert_eq!(ports, [53, 443, 6443].into());
    let metadata = |policy: &Value| policy["egress"].to_string().contains("169.254.169.254/32");
    assert!(metadata(policy));

    let peer = json!([{ "namespaceSelector": { "matchLabels": { "name": "monitoring" } } }]);
    let values = json!({ "networkPolicy": { "enabled": true, "scim": { "from": peer.clone() }, "admin": { "from": peer.clone() },
        "egress": { "metadataServer": false, "extra": [{ "ports": [{ "port": 3128 }] }] } } });
    let objects = render(values);
    let policy = &one(&objects, "NetworkPolicy")["spec"];
    for (rule, port) in policy["ingress"].as_array().unwrap().iter().zip(["scim", "admin"]) {
        assert_eq!(rule, &json!({ "ports": [{ "port": port, "protocol": "TCP" }], "from": peer.clone() }));
    }
    assert!(!metadata(policy));
    assert_eq!(policy["egress"].as_array().unwrap().last().unwrap(), &json!({ "ports": [{ "port": 3128 }] }));
}

#[test]
fn the_service_monitor_selects_the_admin_service_alone() {
    let objects = render(json!({ "serviceMonitor": { "enabled": true, "labels": { "release": "prometheus" } } }));
    let monitor = one(&objects, "ServiceMonitor");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], "admin");
    assert_eq!(monitor["spec"]["endpoints"][0]["path"], "/metrics");
    let selector = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let selected: Vec<_> = of_kind(&objects, "Service")
        .into_iter()
        .filter(|service| selector.iter().all(|(label, value)| service["metadata"]["labels"].get(label) == Some(value)))
        .map(|service| service["metadata"]["name"].clone())
        .collect();
    assert_eq!(selected, ["rolecall-admin"]);
}

fn alerts() -> Vec<Value> {
    let objects = render(everything());
    one(&objects, "PrometheusRule")["spec"]["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn alerts_ask_for_metrics_that_there_are() {
    let page = read("docs/reference/metrics.md");
    let mut asked = 0;
    for alert in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        for (at, _) in expression.match_indices("rolecall_") {
            let name = expression[at..].split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap();
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            let Some(row) = page.lines().find(|line| line.starts_with(&format!("| `{name}` |"))) else {
                panic!("{}: no metric `{name}`", alert["alert"]);
            };
            let labels = expression[at..].split_once('{').unwrap().1.split_once('}').unwrap().0;
            for label in labels.split(',').map(|label| label.split(['=', '!']).next().unwrap()) {
                assert!(
                    ["job", "namespace"].contains(&label) || row.contains(&format!("`{label}`")),
                    "{name}: {label}"
                );
            }
            asked += 1;
        }
        assert!(expression.contains("job=\"rolecall-admin\",namespace=\"rolecall-system\""), "{expression}");
    }
    assert!(asked >= 8, "{asked}");
}

#[test]
fn alerts_lead_to_a_heading_of_the_runbook_and_say_what_it_means() {
    let headings: BTreeSet<String> = read("docs/runbook.md")
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .collect();
    for alert in alerts() {
        let link = alert["annotations"]["runbook_url"].as_str().unwrap();
        if let Some((_, anchor)) = link.split_once('#') {
            assert!(headings.contains(anchor), "{}: the runbook has no heading `{anchor}`", alert["alert"]);
        }
        for field in ["summary", "description"] {
            assert!(alert["annotations"][field].as_str().unwrap().len() > 20, "{alert}");
        }
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()));
    }
}

// What is said after the installation.

/// NOTES.txt as it is shown. `helm template` leaves it out, so that it is put into an object first.
fn notes(values: Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("rolecall");
    fs::create_dir_all(copy.join("templates")).unwrap();
    for file in ["Chart.yaml", "values.yaml", "values.schema.json", "templates/_helpers.tpl"] {
        fs::copy(chart().join(file), copy.join(file)).unwrap();
    }
    let text = read("charts/rolecall/templates/NOTES.txt");
    let object = format!(
        "{{{{- define \"notes\" }}}}{text}{{{{ end }}}}\nkind: Notes\ntext: {{{{ include \"notes\" . | toJson }}}}\n"
    );
    fs::write(copy.join("templates/notes.yaml"), object).unwrap();
    let objects = template(&copy, &with(values)).unwrap_or_else(|error| panic!("{error}"));
    one(&objects, "Notes")["text"].as_str().unwrap().to_owned()
}

#[test]
fn the_notes_say_the_next_three_steps() {
    let said = notes(json!({ "secrets": ["entra-scim"] }));
    for step in [
        "1. Create the token",
        "kubectl -n rolecall-system create secret generic entra-scim",
        "2. Apply an IdentityProvider",
        "3. Apply a CloudRunTarget and a RoleMapping",
        "exec deploy/rolecall -- /rolecall status",
        "/rolecall uninstall --revoke",
    ] {
        assert!(said.contains(step), "{step}:\n{said}");
    }
}

#[test]
fn the_notes_warn_of_what_is_probably_not_meant_and_of_nothing_else() {
    let warnings = |values| notes(values).matches("WARNING: ").count();
    assert_eq!(warnings(json!({})), 4);
    let good = json!({ "mode": "enforce", "externalUrl": "https://a.b", "secrets": ["okta-scim"],
        "networkPolicy": { "enabled": true } });
    assert_eq!(warnings(good.clone()), 0);
    for (bad, word) in [
        (json!({ "mode": "observe" }), "mode is observe"),
        (json!({ "externalUrl": "" }), "externalUrl is not set"),
        (json!({ "externalUrl": "http://a.b" }), "externalUrl is not HTTPS"),
        (json!({ "secrets": null }), "secrets is empty"),
        (json!({ "networkPolicy": { "enabled": false } }), "networkPolicy is off"),
    ] {
        let mut values = good.clone();
        merge(&mut values, bad);
        let said = notes(values);
        assert!(said.contains(&format!("WARNING: {word}")), "{word}:\n{said}");
        assert_eq!(said.matches("WARNING: ").count(), 1, "{said}");
    }
}
