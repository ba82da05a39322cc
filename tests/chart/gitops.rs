//! The examples under `docs/gitops/`: the chart accepts their values, and Argo CD's health check gives the results in
//! the table of the page.

use std::fmt::Write as _;

use super::*;

fn documents(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_values_of_both_examples_are_accepted_by_the_chart() {
    let application = documents("docs/gitops/argocd-application.yaml");
    let release = documents("docs/gitops/flux.yaml");
    let release = one(&release, "HelmRelease");
    for (values, chart_path, name) in [
        (
            &application[0]["spec"]["source"]["helm"]["valuesObject"],
            &application[0]["spec"]["source"]["path"],
            &application[0]["spec"]["source"]["helm"]["releaseName"],
        ),
        (&release["spec"]["values"], &release["spec"]["chart"]["spec"]["chart"], &release["spec"]["releaseName"]),
    ] {
        assert!(values.is_object());
        template(&chart(), values).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(chart_path, "charts/rolecall");
        assert_eq!(name, "rolecall");
    }
    let tag = format!("v{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(application[0]["spec"]["source"]["targetRevision"], tag);
    assert_eq!(one(&documents("docs/gitops/flux.yaml")[..1], "GitRepository")["spec"]["ref"]["tag"], tag);
}

#[test]
fn what_removes_rolecall_itself_is_never_pruned_by_the_examples() {
    let application = documents("docs/gitops/argocd-application.yaml");
    assert_eq!(application[0]["spec"]["syncPolicy"]["automated"]["prune"], false);
    assert_eq!(application[1]["spec"]["syncPolicy"]["automated"]["prune"], true);
    assert!(application.iter().all(|object| object["spec"].get("ignoreDifferences").is_none()));
    let flux = documents("docs/gitops/flux.yaml");
    assert_eq!(named(&flux, "Kustomization", "access-platform")["spec"]["prune"], false);
    assert_eq!(named(&flux, "Kustomization", "access-teams")["spec"]["wait"], true);
}

/// A Lua table constructor.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("[{}] = {}", json!(name), lua(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        // These strings need no escape that JSON and Lua write differently.
        plain => plain.to_string(),
    }
}

/// The results of the health check for these objects, as `STATUS: MESSAGE`.
fn health(objects: &[Value]) -> Vec<String> {
    let config = &documents("docs/gitops/argocd-health.yaml")[0]["data"];
    let script = config["resource.customizations.health.rolecall.dev_RoleMapping"].as_str().unwrap();
    let mut program = format!("local function health(obj)\n{script}\nend\n");
    // Argo CD provides neither of these libraries.
    program.insert_str(
        0,
        "local print = print\nio, os, require, dofile, loadfile, debug = nil, nil, nil, nil, nil, nil\n",
    );
    for object in objects {
        let object = lua(object);
        writeln!(program, "local found = health({object})\nprint(found.status .. ': ' .. (found.message or ''))")
            .unwrap();
    }
    let mut child = Command::new("lua5.1")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Lua 5.1, the language of Argo CD's health checks, is installed: apt-get install lua5.1");
    child.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The types of conditions.
const CONDITIONS: [&str; 12] = [
    "Ready",
    "Accepted",
    "Reconciling",
    "Stalled",
    "Held",
    "Drifted",
    "Frozen",
    "QuotaExceeded",
    "Fresh",
    "TokensValid",
    "Reachable",
    "PermissionsValid",
];

/// An object of generation 3 with conditions written as `Type=Status/Reason`, each with its type as the message.
fn object(conditions: &str) -> Value {
    let conditions: Vec<Value> = conditions
        .split_whitespace()
        .map(|word| {
            let (type_, rest) = word.split_once('=').unwrap();
            let (status, reason) = rest.split_once('/').unwrap();
            assert!(CONDITIONS.contains(&type_), "no condition is called {type_}");
            json!({ "type": type_, "status": status, "reason": reason, "message": format!("of {type_}"), "observedGeneration": 3 })
        })
        .collect();
    json!({ "metadata": { "name": "x", "generation": 3 }, "status": { "observedGeneration": 3, "conditions": conditions } })
}

#[track_caller]
fn table(rows: &[(&str, &str)]) {
    let objects: Vec<Value> = rows.iter().map(|(conditions, _)| object(conditions)).collect();
    let said = health(&objects);
    for ((conditions, expected), said) in rows.iter().zip(&said) {
        assert_eq!(said, expected, "{conditions}");
    }
    assert_eq!(said.len(), rows.len());
}

#[test]
fn the_health_check_is_the_same_for_the_three_kinds() {
    let config = &documents("docs/gitops/argocd-health.yaml")[0];
    let definitions = documents_of_the_kinds();
    assert_eq!(config["metadata"]["name"], "argocd-cm");
    let checks = config["data"].as_object().unwrap();
    let expected: BTreeSet<String> =
        definitions.iter().map(|kind| format!("resource.customizations.health.rolecall.dev_{kind}")).collect();
    assert_eq!(checks.keys().cloned().collect::<BTreeSet<_>>(), expected);
    assert_eq!(checks.values().map(Value::to_string).collect::<BTreeSet<_>>().len(), 1);
}

fn documents_of_the_kinds() -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_rolecall")).arg("crds").output().unwrap();
    assert!(output.status.success());
    let crds: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
    crds.iter().map(|crd| crd["spec"]["names"]["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_health_of_a_role_mapping_is_that_of_the_table_of_conditions() {
    table(&[
        ("Accepted=True/Accepted Ready=True/Converged", "Healthy: Converged: of Ready"),
        (
            "Accepted=True/Accepted Ready=False/BackingOff Reconciling=True/BackingOff",
            "Progressing: BackingOff: of Ready",
        ),
        (
            "Accepted=True/Accepted Ready=False/RevocationPending Reconciling=True/RevocationPending",
            "Progressing: RevocationPending: of Ready",
        ),
        (
            "Accepted=True/Accepted Ready=False/RevocationPending Stalled=True/PermissionDenied",
            "Degraded: PermissionDenied: of Stalled",
        ),
        (
            "Accepted=False/NotDelegated Ready=False/NotDelegated Stalled=True/NotDelegated",
            "Degraded: NotDelegated: of Stalled",
        ),
        (
            "Accepted=False/PartlyDelegated Ready=True/Converged",
            "Healthy: Converged: of Ready; PartlyDelegated: of Accepted",
        ),
        (
            "Accepted=True/Accepted Ready=False/GroupNotFound Reconciling=True/GroupNotFound",
            "Progressing: GroupNotFound: of Ready",
        ),
        (
            "Accepted=True/Accepted Ready=False/GroupNotFound Stalled=True/GroupNotFound",
            "Degraded: GroupNotFound: of Stalled",
        ),
        (
            "Accepted=True/Accepted Ready=True/Converged Held=True/MassRemoval Drifted=True/ForeignMembers",
            "Healthy: Converged: of Ready; MassRemoval: of Held; ForeignMembers: of Drifted",
        ),
        ("Accepted=True/Accepted Ready=True/Observed", "Healthy: Observed: of Ready"),
        (
            "Accepted=True/Accepted Ready=False/StoreMismatch Stalled=True/StoreMismatch Frozen=True/StoreMismatch",
            "Degraded: StoreMismatch: of Stalled",
        ),
        (
            "Accepted=True/Accepted Ready=False/Suspended Stalled=True/Suspended Frozen=True/Suspended",
            "Suspended: Suspended: of Ready",
        ),
    ]);
}

#[test]
fn an_identity_provider_is_degraded_when_no_token_can_be_used_and_healthy_when_it_is_only_silent() {
    table(&[
        ("Ready=True/Accepted TokensValid=True/TokensValid Fresh=True/Fresh", "Healthy: Accepted: of Ready"),
        (
            "Ready=True/Accepted TokensValid=False/TokenExpired Fresh=False/Stale",
            "Healthy: Accepted: of Ready; TokenExpired: of TokensValid; Stale: of Fresh",
        ),
        (
            "Ready=False/TokenSecretNotFound Stalled=True/TokenSecretNotFound TokensValid=False/TokenSecretNotFound Fresh=False/NeverSeen",
            "Degraded: TokenSecretNotFound: of Stalled",
        ),
        (
            "Ready=False/Suspended Stalled=True/Suspended TokensValid=True/TokensValid Fresh=True/Fresh",
            "Suspended: Suspended: of Ready",
        ),
    ]);
}

#[test]
fn a_target_is_progressing_until_it_was_listed_and_degraded_without_permission() {
    table(&[
        ("Accepted=True/Accepted Ready=True/Converged Drifted=False/NoDrift", "Healthy: Converged: of Ready"),
        (
            "Accepted=True/Accepted Ready=False/Progressing Reconciling=True/Progressing Reachable=False/Progressing",
            "Progressing: Progressing: of Ready",
        ),
        (
            "Accepted=True/Accepted Ready=False/GoogleUnavailable Reconciling=True/GoogleUnavailable Reachable=False/GoogleUnavailable",
            "Progressing: GoogleUnavailable: of Ready",
        ),
        (
            "Accepted=True/Accepted Ready=False/PermissionDenied Stalled=True/PermissionDenied PermissionsValid=False/PermissionDenied",
            "Degraded: PermissionDenied: of Stalled",
        ),
        (
            "Accepted=True/Accepted Ready=True/Converged Drifted=True/GrantRemains",
            "Healthy: Converged: of Ready; GrantRemains: of Drifted",
        ),
    ]);
}

#[test]
fn an_object_that_was_not_reconciled_yet_is_progressing() {
    let fresh = json!({ "metadata": { "name": "x", "generation": 1 } });
    let empty = json!({ "metadata": { "name": "x", "generation": 1 }, "status": {} });
    let mut changed = object("Accepted=True/Accepted Ready=True/Converged");
    changed["metadata"]["generation"] = json!(4);
    let mut stalled_before = object("Ready=False/NotDelegated Stalled=True/NotDelegated");
    stalled_before["metadata"]["generation"] = json!(4);
    let unseen = "Progressing: rolecall has not looked at it yet";
    let older = "Progressing: rolecall has not looked at the last change yet";
    assert_eq!(health(&[fresh, empty, changed, stalled_before]), [unseen, unseen, older, older]);
}

#[test]
fn a_condition_without_a_message_is_reported_by_its_reason() {
    let mut object = object("Ready=True/Converged");
    object["status"]["conditions"][0]["message"] = json!("");
    assert_eq!(health(&[object]), ["Healthy: Converged"]);
}
