//! The permissions of the chart, in both directions: none that rolecall needs is missing, and none is superfluous.

use std::fmt;

use serde_json::{Value, json};

use crate::support::{self, *};

const TEAM: &str = "checkout/team";
const ROLES: [(&str, &str); 2] = [("ClusterRole", "rolecall"), ("Role", "rolecall-system/rolecall")];

/// The smallest permission that a rule can give.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Right {
    /// Index into [`ROLES`].
    role: usize,
    group: String,
    resource: String,
    verb: String,
    /// The name of the only object it applies to.
    name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        write!(f, "{}: {} {}.{}{name}", ROLES[self.role].0, self.verb, self.resource, self.group)
    }
}

impl Right {
    fn is_of(&self, call: &Call) -> bool {
        let names = self.name.as_ref().is_none_or(|name| *name == call.name);
        self.group == call.group && self.resource == call.resource && self.verb == call.verb && names
    }

    /// A rule with this permission alone.
    fn rule(&self) -> Value {
        let mut rule = json!({"apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb]});
        if let Some(name) = &self.name {
            rule["resourceNames"] = json!([name]);
        }
        rule
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().expect("text").to_owned()).collect()
}

/// All permissions of the chart's roles, one by one.
async fn rights(cluster: &ControlPlane) -> Vec<Right> {
    let mut rights = Vec::new();
    for (role, (kind, name)) in ROLES.into_iter().enumerate() {
        for rule in cluster.admin.find(kind, name).await["rules"].as_array().expect("rules") {
            let names: Vec<Option<String>> = match rule.get("resourceNames") {
                None => vec![None],
                Some(names) => texts(names).into_iter().map(Some).collect(),
            };
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        let one = |name: &Option<String>| Right {
                            role,
                            group: group.clone(),
                            resource: resource.clone(),
                            verb: verb.clone(),
                            name: name.clone(),
                        };
                        rights.extend(names.iter().map(one));
                    }
                }
            }
        }
    }
    rights
}

/// Gives rolecall these permissions, and waits until the API server no longer permits `without`.
async fn allow(cluster: &ControlPlane, user: &str, rights: &[Right], without: Option<&Right>) {
    for (role, (kind, name)) in ROLES.into_iter().enumerate() {
        let mut object = cluster.admin.find(kind, name).await;
        let left = rights.iter().filter(|right| right.role == role && Some(*right) != without);
        object["rules"] = left.map(Right::rule).collect();
        cluster.admin.replace(&object).await.unwrap_or_else(|refused| panic!("{kind}: {refused}"));
    }
    for right in rights {
        eventually(&format!("{right}"), async || {
            let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
            let attributes = json!({
                "group": right.group, "resource": resource, "subresource": subresource, "verb": right.verb,
                "name": right.name, "namespace": SYSTEM,
            });
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {"user": user, "resourceAttributes": attributes},
            });
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let post = reqwest::Method::POST;
            let answer = cluster.admin.call(post, path, "application/json", review.to_string()).await;
            let allowed = answer.map_err(|refused| refused.to_string())?["status"]["allowed"] == true;
            if allowed == (Some(right) != without) { Ok(()) } else { Err(format!("allowed: {allowed}")) }
        })
        .await;
    }
}

/// Waits until `check` accepts an object, which is null when it does not exist.
async fn until(cluster: &ControlPlane, kind: &str, name: &str, what: &str, check: impl Fn(&Value) -> bool) {
    eventually(&format!("{kind} {name}: {what}"), async || {
        let object = cluster.admin.find(kind, name).await;
        if check(&object) { Ok(()) } else { Err(format!("{object:#}")) }
    })
    .await;
}

/// A run of rolecall that needs all of its permissions.
async fn life(cluster: &ControlPlane, google: &Google, pod: &mut Pod) {
    let admin = &cluster.admin;
    let ready = |object: &Value| has(&object["status"], "Ready", "True", "");
    let by_label = target(&["services/*"], &[INVOKER]).replace("names: [checkout]", "matchLabels: {team: checkout}");
    pod.start().await;
    // The rest arrives through watches, not through lists.
    pod.at_work().await;
    admin.apply(&provider("okta", TOKEN)).await;
    let scim = pod.scim("okta", TOKEN);
    accepted(&scim, 200).await;
    let alice = scim.create_user("alice@example.com").await;
    scim.create_group("team-checkout", &[&alice]).await;
    admin.apply(&by_label).await;
    admin.apply(&support::team()).await;
    let refused = |object: &Value| has(&object["status"], "Ready", "False", "NotDelegated");
    until(cluster, "RoleMapping", TEAM, "not delegated", refused).await;
    admin.namespace("checkout", &json!({"team": "checkout"})).await;
    google.members_become("checkout-api", INVOKER, &[ALICE]).await;
    until(cluster, "RoleMapping", TEAM, "ready", ready).await;
    until(cluster, "CloudRunTarget", "shop-dev", "ready", ready).await;
    until(cluster, "IdentityProvider", "okta", "ready", ready).await;
    // When the same reason occurs for the second time, the count of the first Event increases.
    let event = async |what: &str, check: fn(&Value) -> bool| {
        eventually(what, async || {
            let events = admin.list("Event", Some("checkout")).await.map_err(|refused| refused.to_string())?;
            if events.iter().any(check) { Ok(()) } else { Err(json!(events).to_string()) }
        })
        .await;
    };
    event("an Event", |event| event["reason"] == "Converged").await;
    for (mode, reason) in [("Suspend", "Suspended"), ("Enforce", "Converged")] {
        admin.patch("RoleMapping", TEAM, &json!({"spec": {"mode": mode}})).await.expect("a mode");
        let said = |object: &Value| condition(&object["status"], "Ready")["reason"] == reason;
        until(cluster, "RoleMapping", TEAM, reason, said).await;
    }
    event("an Event that is counted up", |event| event["series"]["count"].as_u64() > Some(1)).await;
    let other = "another-token-of-okta-0123456789abcdef";
    let secret = json!({"stringData": {"token": other}});
    admin.patch("Secret", &format!("{SYSTEM}/okta-scim"), &secret).await.expect("a token");
    accepted(&pod.scim("okta", other), 200).await;
    pod.shutdown().await;
    pod.start().await;
    pod.at_work().await;
    admin.delete("RoleMapping", TEAM).await;
    until(cluster, "RoleMapping", TEAM, "gone", Value::is_null).await;
    google.members_become("checkout-api", INVOKER, &[]).await;
    pod.shutdown().await;
}

/// Restores the state before the first run.
async fn forget(fixture: &mut Fixture) {
    fixture.pod.kill();
    let admin = fixture.admin();
    let _ = admin.patch("RoleMapping", TEAM, &json!({"metadata": {"finalizers": []}})).await;
    let objects = [
        ("RoleMapping", TEAM),
        ("CloudRunTarget", "shop-dev"),
        ("IdentityProvider", "okta"),
        ("Secret", "rolecall-system/okta-scim"),
        ("Lease", "rolecall-system/rolecall"),
    ];
    for (kind, name) in objects {
        if !admin.find(kind, name).await.is_null() {
            admin.delete(kind, name).await;
        }
    }
    for event in admin.list("Event", Some("checkout")).await.expect("Events") {
        let (kind, name) = ("Event", event["metadata"]["name"].as_str().expect("a name"));
        admin.delete(kind, &format!("checkout/{name}")).await;
    }
    admin.namespace("checkout", &json!({})).await;
    fixture.edit_policy("checkout-api", Vec::clear).await;
    std::fs::remove_dir_all(&fixture.release.volume).expect("the volume");
    std::fs::create_dir_all(&fixture.release.volume).expect("the volume");
}

/// Waits until the API server has refused this, and rolecall has reported it.
async fn refusal(cluster: &ControlPlane, then: usize, user: &str, log: &std::path::Path, born: usize, right: &Right) {
    let by = |call: &&Call| call.user == user && call.code == 403;
    eventually_within(PATIENCE * 2, &format!("a refusal of {right}"), async || {
        let refused: Vec<Call> = cluster.calls_since(then).iter().filter(by).cloned().collect();
        let said = std::fs::read_to_string(log).unwrap_or_default().split_off(born);
        if !refused.iter().any(|call| right.is_of(call)) {
            return Err(format!("{refused:#?}; log:\n{}", tail(&said)));
        }
        let words = [
            format!("cannot {} resource \"{}\"", right.verb, right.resource),
            format!("does not let rolecall read the Secret {}", right.name.as_deref().unwrap_or("?")),
        ];
        let told = words.iter().any(|words| said.contains(words.as_str()));
        if told { Ok(()) } else { Err(format!("refused, and nothing is said of it; log:\n{}", tail(&said))) }
    })
    .await;
}

#[tokio::test]
async fn every_right_of_the_chart_is_needed_and_none_is_missing() {
    let mut fixture = Fixture::prepare(&["secrets={okta-scim}"]).await;
    fixture.create_services("shop-dev", &["checkout-api"]).await;
    let user = fixture.pod.user.clone();
    let rights = rights(&fixture.cluster).await;
    assert!(rights.len() > 15, "{rights:#?}");

    let then = fixture.cluster.now();
    life(&fixture.cluster, &fixture.google, &mut fixture.pod).await;
    eventually("something was done with each right", async || {
        let calls: Vec<Call> = fixture.cluster.calls_since(then).into_iter().filter(|call| call.user == user).collect();
        let refused: Vec<&Call> = calls.iter().filter(|call| call.code == 403).collect();
        assert!(refused.is_empty(), "rolecall lacks a right: {refused:#?}");
        let is_used = |right: &Right| calls.iter().any(|call| right.is_of(call));
        let unused: Vec<String> = rights.iter().filter(|right| !is_used(right)).map(ToString::to_string).collect();
        if unused.is_empty() { Ok(()) } else { Err(format!("rights that nothing was done with: {unused:#?}")) }
    })
    .await;

    for right in &rights {
        forget(&mut fixture).await;
        allow(&fixture.cluster, &user, &rights, Some(right)).await;
        let (then, log, born) = (fixture.cluster.now(), fixture.pod.log.clone(), fixture.pod.said().len());
        tokio::select! {
            () = life(&fixture.cluster, &fixture.google, &mut fixture.pod) => panic!("all is well without {right}"),
            () = refusal(&fixture.cluster, then, &user, &log, born, right) => {}
        }
    }
    println!("measured: rights of the chart, each of them needed: {}", rights.len());
}
