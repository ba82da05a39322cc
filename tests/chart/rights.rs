//! Permissions of rolecall and of the people of the cluster.

use super::*;

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
        rule(&["apiextensions.k8s.io"], &["customresourcedefinitions"], &["rolemappings.rolecall.dev"], &["get"]),
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
    assert_eq!(pod_of(&objects)["serviceAccountName"], "mine");
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
    assert_eq!(pod_of(&objects)["automountServiceAccountToken"], true);
}
